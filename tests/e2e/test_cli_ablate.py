"""`empg ablate` through the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
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
from empg_cli.owner import FolderOwned, owning
from empg_cli.runs.facts import cell_hash
from empg_cli.runs.study import read_study

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
        value = 0.5 + 0.01 * cfg.seed + (0.1 + 0.002 * (-1) ** cfg.seed if "empg" in cfg.algo.name else 0.0)
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


def test_seeds_that_come_later_are_in_one_table_with_the_others(empg: Empg, played: list[str]) -> None:
    empg("ablate", "ablation=dapo_empg", "seeds=2", "run_dir=study")
    result = empg("ablate", "ablation=dapo_empg", "seeds=[7]", "run_dir=study")
    assert played[4:] == ["dapo-s7", "dapo_empg-s7"]
    assert "INCOMPLETE" not in result.stdout
    rows = json.loads(Path("study/ablation.json").read_text())["rows"]
    assert [[run["seed"] for run in row["runs"]] for row in rows] == [[0, 1, 7], [0, 1, 7]]
    planned = empg("ablate", "ablation=dapo_empg", "seeds=[7,8]", "run_dir=study", "--plan").stdout
    assert "2 of 4 cells to run" in planned and "measured: dapo_empg - dapo, 3 seeds" in planned
    more = empg("ablate", "ablation=dapo_empg", "seeds=1", "run_dir=study", '+ablation.variants.grpo=["algo=grpo"]')
    assert played[6:] == ["grpo-s0"]  # this command's own seeds: nobody has asked for the others
    assert "INCOMPLETE: 7 of 9 runs are done" in more.stdout


def test_a_cell_that_another_process_plays_is_left_to_it(empg: Empg, played: list[str]) -> None:
    Path("study/scaling-s0").mkdir(parents=True)
    with owning(Path("study/scaling-s0"), "training"):
        result = empg("ablate", "seeds=1", "run_dir=study")
    assert played == ["grpo-s0", "bonus-s0", "empg-s0"]
    assert f"Played by process {os.getpid()} on " in result.stderr
    assert "1 of 4 cells (scaling-s0); the tables will have them when it ends" in result.stderr
    assert "INCOMPLETE: 3 of 4 runs are done" in result.stdout
    assert not list(Path("study").rglob(".owner"))


def test_a_cell_that_was_let_go_unfinished_is_played_in_the_end(
    empg: Empg, played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from empg_cli import loop

    works, held = loop.train, contextlib.ExitStack()
    for name in ("grpo-s0", "bonus-s0"):
        Path("study", name).mkdir(parents=True)
        held.enter_context(owning(Path("study", name), "training"))

    def train(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        summary = works(cfg, run_dir)
        if cfg.algo.name == "empg" and run_dir.name == "empg-s0":  # the last: the other one dies, with one cell done
            shutil.copytree("study/empg-s0", "study/bonus-s0", dirs_exist_ok=True)
            mark = {
                "exit_code": 0,
                "cell_hash": {c.folder: c.cell_hash for c in read_study(Path("study")).cells}["bonus-s0"],
            }
            Path("study/bonus-s0/summary.json").write_text(json.dumps(mark))
            held.close()
        return summary

    monkeypatch.setattr(loop, "train", train)
    result = empg("ablate", "seeds=1", "run_dir=study")
    assert played == ["scaling-s0", "empg-s0", "grpo-s0"]
    assert "INCOMPLETE" not in result.stdout and "Played by" not in result.stderr


def test_a_cell_that_is_taken_in_the_last_moment(
    empg: Empg, played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from empg_cli import loop

    works, taken, tried = loop.train, contextlib.ExitStack(), []

    def train(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        tried.append(run_dir.name)
        if run_dir.name == "grpo-s0":
            taken.enter_context(owning(run_dir, "training"))
        if tried.count(run_dir.name) == 1 and run_dir.name in ("grpo-s0", "bonus-s0"):
            raise FolderOwned("somebody has it, or only looks at it")
        return works(cfg, run_dir)

    monkeypatch.setattr(loop, "train", train)
    with taken:
        result = empg("ablate", "seeds=1", "run_dir=study")
    assert played == ["scaling-s0", "bonus-s0", "empg-s0"]
    assert "(grpo-s0); the tables will have them" in result.stderr


def test_two_commands_at_once_play_every_cell_once(tmp_path: Path, small: Small) -> None:
    """Two processes, the same seeds: the real loop and its lock."""
    words = ["ablate", "ablation=dapo_empg", "ablation.metric=actor/entropy", "seeds=2", "run_dir=study", *small]
    words += ["trainer.updates=1", "algo.sampling.max_resamples=1", "logger.console=quiet"]
    command = [sys.executable, "-m", "empg_cli", *words]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    comparison = json.loads((tmp_path / "study" / "ablation.json").read_text())
    assert [[run["seed"] for run in row["runs"]] for row in comparison["rows"]] == [[0, 1], [0, 1]]
    for folder in (tmp_path / "study").glob("*-s*"):
        updates = [json.loads(line)["update"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert updates == sorted(set(updates)), f"{folder.name} was played twice"


def test_cells_on_other_data_are_not_played(empg: Empg, small: Small) -> None:
    """The same path, another shop: refused by the cell, before anything is played on it."""
    for name, seed in (("shop", "0"), ("other", "1")):
        empg("data", "compile", "webshop", "--generate", "40", "--shop-seed", seed, "--out", name)
    words = [
        *("ablate", "ablation=dapo_empg", "ablation.metric=actor/entropy", "run_dir=study", "benchmark=webshop"),
        *("benchmark.data_dir=shop", "benchmark.eval_tasks=2", "benchmark.max_steps=2", "algo.group_size=2"),
        *("algo.sampling.max_resamples=1", "trainer.updates=1", "trainer.tasks_per_update=2", "trainer.minibatches=1"),
        *("trainer.eval_before=false", "trainer.checkpoint_every=0", "logger.console=quiet"),
        *(word for word in small if word.startswith(("model", "logger"))),
    ]
    empg(*words, "seeds=1")
    Path("shop").rename("moved")
    Path("other").rename("shop")
    refused = empg(*words, "seeds=2", code=2)
    assert "data: generated" in refused.stderr and "made dapo-s1 (now)" in refused.stderr
    assert "INCOMPLETE: 2 of 4 runs are done" in refused.stdout and "MIXED" not in refused.stdout
    assert not list(Path("study").glob("*-s1/checkpoints")) and not list(Path("study").glob("*-s1/run.json"))
    assert "INCOMPLETE" not in empg(*words, "seeds=2", "benchmark.data_dir=moved").stdout
    assert "(now)" in empg(*words, "seeds=2", code=2).stderr  # nothing left to play, and yet not what is asked for
    marked = empg(*words, "seeds=3", "ablation.mixed=mark").stdout
    assert marked.index("MIXED data: ") < marked.index("Δ to dapo")
    assert "not made of the same" in empg(*words, "seeds=3", code=2).stderr
    assert "MIXED data: " in empg("show", "study").stdout


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
