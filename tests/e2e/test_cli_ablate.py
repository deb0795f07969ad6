"""`empg ablate` through the real command line."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from empg_cli.config.schema import TrainConfig
from empg_cli.observe.stop import Stopped
from empg_cli.runs.facts import cell_hash

Empg = Callable[..., Result]
Small = tuple[str, ...]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells that a stand-in for the loop was asked to run, in order; it leaves what a finished run leaves."""
    from empg_cli import loop

    asked: list[str] = []

    def train(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        assert cfg.resume == "auto"
        asked.append(run_dir.name)
        value = 0.5 + 0.01 * cfg.seed + (0.1 if cfg.algo.name == "empg" else 0.0)
        row = {"update": 1, "eval/success_rate": value, "eval/n": 100}
        (run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        (run_dir / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell_hash(cfg)}))
        return loop.RunSummary(run_dir, 1, value)

    monkeypatch.setattr(loop, "train", train)
    return asked


def test_cells_run_seed_by_seed_and_end_in_tables(empg: Empg, played: list[str]) -> None:
    result = empg("ablate", "seeds=2", "run_dir=study")
    assert played == ["grpo-s0", "scaling-s0", "bonus-s0", "empg-s0", "grpo-s1", "scaling-s1", "bonus-s1", "empg-s1"]
    assert "Δ to grpo" in result.stdout
    assert {path.name for path in Path("study").iterdir() if path.is_file()} >= {
        "study.json", "ablation.md", "ablation.tex", "ablation.csv", "ablation.json", "runs.csv",
    }  # fmt: skip
    rows = {row["variant"]: row for row in json.loads(Path("study/ablation.json").read_text())["rows"]}
    assert rows["empg"]["difference"]["mean"] == pytest.approx(0.1)


def test_done_cells_are_skipped_and_more_seeds_extend_the_study(empg: Empg, played: list[str]) -> None:
    empg("ablate", "ablation=zeta", "seeds=1")
    assert len(played) == 3
    again = empg("ablate", "ablation=zeta", "seeds=1")
    assert len(played) == 3
    assert "3 of 3 cells are done already" in again.stderr
    empg("ablate", "ablation=zeta", "seeds=2")
    assert played[3:] == ["zeta-0.01-s1", "zeta-0.05-s1", "zeta-0.1-s1"]
    (folder,) = Path("ablations").iterdir()
    assert "zeta-0.05 " in (folder / "ablation.md").read_text()


def test_a_stopped_study_shows_what_there_is_and_goes_on(
    empg: Empg, played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from empg_cli import loop

    works = loop.train

    def stops_at_the_third(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        if len(played) == 2:
            raise Stopped(signal.SIGTERM, "empg train --resume somewhere")
        return works(cfg, run_dir)

    monkeypatch.setattr(loop, "train", stops_at_the_third)
    result = empg("ablate", "ablation=k", "seeds=2", code=143)
    assert "2 of 6 cells are done" in result.stderr
    assert "INCOMPLETE: 2 of 6 runs are done" in result.stdout
    monkeypatch.setattr(loop, "train", works)
    empg("ablate", "ablation=k", "seeds=2")
    assert len(played) == len(set(played)) == 6  # no cell ran twice


def test_a_failing_cell_leaves_the_others(empg: Empg, played: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from empg_cli import loop

    works = loop.train

    def fails(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        if cfg.algo.name == "grpo":
            raise ZeroDivisionError("a bug")
        return works(cfg, run_dir)

    monkeypatch.setattr(loop, "train", fails)
    result = empg("ablate", "seeds=1", "run_dir=study", code=1)
    assert "ZeroDivisionError: a bug" in result.stderr
    assert played == ["scaling-s0", "bonus-s0", "empg-s0"]
    assert "| empg | 1 |" in Path("study/ablation.md").read_text()


def test_a_wrong_variant_stops_before_the_first_cell(empg: Empg, played: list[str]) -> None:
    result = empg("ablate", '+ablation.variants.x=["algo.credit.zeta=-1"]', "algo.group_size=1", code=2)
    assert "algo.credit.zeta" in result.stderr
    assert "algo.group_size" in result.stderr
    assert played == [] and list(Path().iterdir()) == []


def test_the_plan_runs_nothing(empg: Empg, played: list[str]) -> None:
    result = empg("ablate", "--plan", "--detect", "0.03", "--sd", "0.05", "ablation=zeta")
    assert "15 of 15 cells to run (3 variants x 5 seeds)" in result.stdout
    assert ["0.05", "24"] in [line.split()[:2] for line in result.stdout.splitlines()]
    assert played == [] and list(Path().iterdir()) == []


def test_the_plan_measures_the_spread_of_a_pilot(empg: Empg, played: list[str]) -> None:
    empg("ablate", "seeds=3", "run_dir=study")
    assert "measured: empg - grpo, 3 seeds" in empg("ablate", "--plan", "seeds=9", "run_dir=study").stdout


def test_jobs_are_joblibs(empg: Empg, played: list[str]) -> None:
    shown = empg("ablate", "--jobs", "2", "hydra/launcher=basic", code=2).stderr
    assert "--jobs: is joblib's" in shown
    assert "ablation:" in empg("ablate", "--cfg", "job").stdout
    assert list(Path().iterdir()) == []


@pytest.mark.launcher
@pytest.mark.slow
def test_real_cells_on_two_workers_agree_with_their_own_files(tmp_path: Path, small: Small) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    (tmp_path / "mine" / "ablation").mkdir(parents=True)
    (tmp_path / "mine" / "ablation" / "pair.yaml").write_text(
        "name: pair\nmetric: actor/entropy\nbase: grpo\nvariants: {grpo: [algo=grpo], empg: [algo=empg]}\n"
    )
    words = ["ablate", "--config-dir", "mine", "ablation=pair", "seeds=2", "--jobs", "2", "run_dir=study"]
    command = [sys.executable, "-m", "empg_cli", *words, *small]

    def run() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    study = tmp_path / "study"
    shown = {row["variant"]: row for row in json.loads((study / "ablation.json").read_text())["rows"]}
    for variant in ("grpo", "empg"):
        values = []
        for seed in (0, 1):
            lines = (study / f"{variant}-s{seed}" / "metrics.jsonl").read_text().splitlines()
            values.append([row["actor/entropy"] for row in map(json.loads, lines) if "actor/entropy" in row][-1])
        assert shown[variant]["mean"] == pytest.approx(statistics.mean(values), abs=1e-12)
    before = {path: path.stat().st_mtime_ns for path in study.glob("*/metrics.jsonl")}
    assert len(before) == 4
    again = run()
    assert again.returncode == 0, again.stderr
    assert "4 of 4 cells are done already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in study.glob("*/metrics.jsonl")} == before
