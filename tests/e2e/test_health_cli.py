"""Health checks and `empg diagnose` through the real command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from empg_cli.evaluation.diagnosis import FOLDER, read_diagnosis
from empg_cli.reports.health_history import health_warnings
from empg_cli.runs.histograms import read_histograms
from empg_cli.runs.reading import open_runs
from empg_cli.runs.rows import read_rows, without_wall_clock


def test_a_first_batch_without_signal_stops_before_anything_is_trained(empg, small):
    # A random model on four steps: every episode fails in the same way, so no group has a signal.
    done = empg("train", *small, "run_dir=run", "trainer.health.preflight_episodes=1", code=3)
    text = " ".join(done.stderr.split())
    assert "groups with a signal 0.0%, below trainer.health.min_signal_groups=0.01" in text
    assert "trainer.health.preflight=warn" in text
    assert "Traceback" not in done.stderr
    assert json.loads(Path("run/summary.json").read_text()) == {"exit_code": 3}
    assert not Path("run/checkpoints").exists()


def test_a_health_stop_saves_says_why_and_can_go_on(empg, small):
    watching = ("trainer.health.stop=true", "trainer.health.no_signal_updates=1")
    done = empg("train", *small, "run_dir=run", *watching, code=3)
    assert "stopped by trainer.health after update 1" in done.stderr
    assert "empg train --resume run" in done.stderr
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-000001"]
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["exit_code"], summary["updates"], summary["health/warnings"]) == (3, 1, 1.0)
    assert "health              no_signal at update 1" in done.stdout

    (run,) = open_runs([Path("run")])
    (warning,) = health_warnings(run)
    assert (warning.name, warning.update, warning.group) == ("no_signal", 1, 0)
    assert warning.text in " ".join(done.stderr.split())
    record = json.loads(Path("run/health.jsonl").read_text())["trajectory"]
    assert record["task_id"] == warning.task_id and len(record["steps"]) == warning.step  # its last step is named
    (weights,) = read_histograms(run.folder, "hist/weight").values()
    assert sum(weights.counts) == sum(read_histograms(run.folder, "hist/step_entropy_lost")[1].counts)

    empg("train", "--resume", "run")  # has warned once, so it goes on to the end
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["exit_code"], summary["updates"], summary["health/warnings"]) == (0, 2, 1.0)
    assert len(Path("run/health.jsonl").read_text().splitlines()) == 1
    (run,) = open_runs([Path("run")])
    assert list(read_histograms(run.folder, "hist/weight")) == [1, 2]


def test_watching_changes_nothing_that_is_trained(empg, small, finished_run):
    empg("train", *small, "run_dir=run", "trainer.health.preflight=off", "trainer.health.warn=false")
    watched, blind = (read_rows(folder / "metrics.jsonl") for folder in (finished_run, Path("run")))

    def trained(rows):
        return [{key: value for key, value in without_wall_clock(row).items() if not key.startswith("health/")}
                for row in rows.values()]  # fmt: skip

    assert trained(watched) == trained(blind)
    assert "health/warnings" in watched[2] and "health/warnings" not in blind[2]
    hashes = {json.loads((folder / "run.json").read_text())["config_hash"] for folder in (finished_run, Path("run"))}
    assert len(hashes) == 1


@pytest.fixture(scope="module")
def older_run(finished_run, tmp_path_factory):
    """A run as a version without health checks has left it."""
    folder = tmp_path_factory.mktemp("older") / "run"
    shutil.copytree(finished_run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["trainer"]["health"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    facts = json.loads((folder / "run.json").read_text())
    del facts["format"], facts["config_digests"], facts["checksum"]
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def test_diagnose_checks_proposition_1_on_the_runs_own_policy(empg, older_run):
    done = empg("diagnose", older_run, "--episodes", "3", "--gradients", "5", "benchmark.max_steps=3")
    (run,) = open_runs([older_run])
    found = read_diagnosis(run.folder / FOLDER)
    assert (found.policy, found.episodes, found.data) == ("step-000002", 3, "generated")
    proposition = found.proposition1
    assert proposition.largest_error < 1e-12
    assert abs(proposition.excess.value) < 2 * (proposition.excess.high - proposition.excess.value)  # 4 sigma
    assert sum(row.sampled.n for row in proposition.bins) == found.tokens
    for row in proposition.bins:
        assert row.exact == pytest.approx(row.predicted, abs=1e-12)
        assert row.sampled.low <= row.sampled.value <= row.sampled.high
    assert [row.entropy for row in proposition.bins] == sorted(row.entropy for row in proposition.bins)
    assert len(found.gradients.steps) == 5
    assert all(step.gradient_norm > 0 and step.step <= 3 for step in found.gradients.steps)
    assert found.change.before == "initial"  # made again from the seed, its digest compared with run.json
    assert sum(row.change.n for row in found.change.bins) > 0
    for row in found.change.bins:
        assert row.change.value == pytest.approx(row.after - row.before, abs=1e-9)
        assert abs(row.change.value) <= row.absolute + 1e-12
    assert f"sampled - exact, all tokens: {proposition.excess.value:+.5f} [" in done.stdout
    assert "from initial to step-000002" in done.stdout
    with (older_run / "diagnostics" / "gradients.csv").open(newline="") as file:
        assert [float(line["gradient_norm"]) for line in csv.DictReader(file)] == [
            step.gradient_norm for step in found.gradients.steps
        ]


def test_diagnose_says_the_same_twice_and_as_json(empg, older_run):
    words = ("diagnose", older_run, "--episodes", "2", "--gradients", "0", "benchmark.max_steps=2", "--json")
    first, second = (json.loads(empg(*words, "--out", name).stdout) for name in ("a", "b"))
    assert first == second
    assert first["gradients"] is None
    assert json.loads(json.dumps(first)) == json.loads(Path("a/diagnosis.json").read_text())
    assert read_diagnosis(Path("a")) == read_diagnosis(Path("b"))
