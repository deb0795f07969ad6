"""How W&B files real runs: names, groups and ids from settings and variables, what a run is made of, tables, policies,
evaluations, and what the agent of a sweep starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from empg_cli.runs.checkpoint import all_checkpoints
from empg_cli.runs.run_file import read_run_file
from tests.support.offline_wandb import OfflineRun, offline_files, read_offline_run

pytestmark = pytest.mark.slow
pytest.importorskip("wandb", reason="wandb is not installed (pip install wandb)")

SMALL = (
    *("experiment=smoke", "model=tiny-scratch", "trainer.warm_start.steps=2", "trainer.warm_start.keep_failed=true"),
    *("benchmark.eval_tasks=3", "benchmark.max_steps=3"),
)
SWEEP = Path(__file__).resolve().parents[2] / "scripts" / "wandb_sweep.yaml"


def empg(home: Path, *words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    fixed = {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "WANDB_X_DISABLE_STATS": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "empg_cli", *words],
        env=kept | fixed | variables,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def newest(run_dir: Path) -> OfflineRun:
    return read_offline_run(offline_files(run_dir)[-1])


def rows_of(run_dir: Path, name: str) -> list[dict[str, Any]]:
    """The newest table of this name, from the files beside the log."""
    folder = offline_files(run_dir)[-1].parent / "files" / "media" / "table" / "eval"
    (path,) = folder.glob(f"{name}_2_*.json")
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run in `run`, named by W&B's variables, and all artifacts."""
    found = tmp_path_factory.mktemp("home")
    variables = {
        "WANDB_NAME": "lamp",
        "WANDB_RUN_GROUP": "lights",
        "WANDB_TAGS": "night, day",
        "WANDB_NOTES": "on the desk",
        "WANDB_RUN_ID": "fromoutside",
    }
    words = ("logger=wandb", "logger.wandb.artifacts=[evaluations,trajectories,best,last]", "run_dir=run")
    empg(found, "train", *SMALL, *words, **variables)
    return found


def test_a_run_is_named_by_the_variables_of_wandb(home: Path) -> None:
    run = newest(home / "run").run
    assert (run.run_id, run.display_name, run.run_group, run.notes) == ("fromoutside", "lamp", "lights", "on the desk")
    assert {"night", "day", "alfworld"} <= set(run.tags)
    assert run.job_type == "train"
    assert read_run_file(home / "run")["wandb_id"] == "fromoutside"


def test_the_config_says_what_the_run_is_made_of(home: Path) -> None:
    facts, known = newest(home / "run").config["facts"], read_run_file(home / "run")
    assert facts["data"]["source"] == "generated"
    assert facts["data"]["digest"] == known["data"]["digest"]
    assert facts["weights"]["digest"] == known["model"]["digest"]
    assert facts["versions"]["torch"] == known["versions"]["torch"]
    assert (facts["commit"], facts["code"]) == (known["commit"], known["code"])


def test_tables_hold_the_tasks_and_the_trajectories_of_an_evaluation(home: Path) -> None:
    evaluation = json.loads((home / "run" / "evaluations" / "update-000002.json").read_text())
    tasks = rows_of(home / "run", "evaluations")
    assert [(row["task_id"], row["success"]) for row in tasks] == [
        (task["task_id"], task["success"]) for task in evaluation["tasks"]
    ]
    kept = (home / "run" / "trajectories" / "update-000002-eval.jsonl").read_text().splitlines()
    shown = rows_of(home / "run", "trajectories")
    for row, line in zip(shown, map(json.loads, kept), strict=True):
        assert (row["task_id"], row["steps"]) == (line["task_id"], len(line["steps"]))
        assert line["steps"][0]["observation"] in row["text"]


def test_the_policies_of_checkpoints_are_artifacts(home: Path) -> None:
    found = {alias: one for one in newest(home / "run").artifacts if one.type == "model" for alias in one.aliases}
    assert set(found) >= {"best", "last"}
    names = {entry.path for entry in found["last"].manifest.contents}
    model = all_checkpoints(home / "run")[-1] / "model"
    assert names == {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    staged = [entry.local_path for entry in found["last"].manifest.contents if entry.local_path]
    assert staged and all(Path(path).is_relative_to(home / "run") for path in staged)
    assert not (home / ".local" / "share" / "wandb").exists()


def test_a_run_that_goes_on_for_longer_keeps_name_group_and_id(home: Path) -> None:
    """Moved or not. A copy is a run of its own."""
    shutil.copytree(home / "run", home / "copy", symlinks=True)
    (home / "run").rename(home / "longer")
    shutil.copytree(home / "longer", home / "run", symlinks=True)  # for other tests
    empg(home, "train", "--resume", "longer", "trainer.updates=3")
    assert "trackers get a run of its own" in empg(home, "train", "--resume", "copy", "trainer.updates=3").stderr
    assert newest(home / "copy").run.run_id != "fromoutside"
    run = newest(home / "longer")
    assert (run.run.run_id, run.run.display_name, run.run.run_group) == ("fromoutside", "lamp", "lights")
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3]


def test_without_variables_the_group_outlives_a_longer_run(home: Path) -> None:
    empg(home, "train", *SMALL, "trainer.updates=1", "trainer.eval_before=false", "run_dir=plain")
    before = newest(home / "plain").run
    empg(home, "train", "--resume", "plain", "trainer.updates=2")
    after = newest(home / "plain").run
    assert (after.run_group, after.display_name, after.run_id) == (
        before.run_group,
        before.display_name,
        before.run_id,
    )
    assert before.run_group.startswith("alfworld-empg-")


def test_an_evaluation_logs_where_it_is_asked_to(home: Path) -> None:
    words = ("eval", "run=run", "benchmark.eval_tasks=3", "seeds=2")
    empg(home, *words, "run_dir=silent")
    assert not (home / "silent" / "wandb").exists()
    empg(home, *words, "logger=wandb", "run_dir=loud")
    run = newest(home / "loud")
    assert (run.run.job_type, run.run.run_group, run.run.display_name) == ("eval", "lights", "lamp-valid_seen")
    passes = [json.loads(path.read_text()) for path in sorted((home / "loud" / "passes").glob("*.json"))]
    assert [(row["eval/success_rate"], row["eval/seed"]) for row in run.history] == [
        (one["total"]["success_rate"], one["seed"]) for one in passes
    ]
    assert run.config["facts"]["weights"]["digest"] == passes[0]["policy"]["digest"]
    assert run.exit_code == 0


@pytest.mark.parametrize("variables", [{"WANDB_DISABLED": "true"}, {"WANDB_MODE": "disabled"}], ids=str)
def test_disabled_by_a_variable(home: Path, variables: dict[str, str]) -> None:
    run_dir = home / next(iter(variables))
    empg(home, "train", *SMALL, "trainer.updates=1", "trainer.eval_before=false", f"run_dir={run_dir}", **variables)
    assert not (run_dir / "wandb").exists()


def test_what_the_agent_of_a_sweep_starts(home: Path) -> None:
    """Its command line and variables, as `wandb agent` makes them of the file that ships."""
    from wandb.sdk.launch.sweeps import utils

    sweep = yaml.safe_load(SWEEP.read_text())
    arguments = {
        key: {"value": settings["value"] if "value" in settings else settings.get("values", [1e-4])[0]}
        for key, settings in sweep["parameters"].items()
    }
    made = utils.create_sweep_command_args({"args": arguments})
    words = []
    for word in sweep["command"]:
        match word:
            case "${env}":
                pass
            case "${args}":
                words += made["args"]
            case _:
                words.append(word)
    assert words[:2] == ["empg", "train"]
    assert any(word.startswith("--trainer.lr=") for word in words)
    path = home / "sweep-params.yaml"
    path.write_text(yaml.safe_dump({"wandb_version": 1, **arguments}))
    variables = {
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_RUN_ID": "agents1",
        "WANDB_SWEEP_PARAM_PATH": str(path),
        "WANDB_MODE": "offline",
    }
    words.remove("experiment=demo")
    empg(home, *words[1:], *SMALL, "trainer.updates=1", **variables)
    run_dir = home / "sweeps" / "agents1"
    run = newest(run_dir)
    assert (run.run.run_id, run.run.sweep_id) == ("agents1", "sweep1")
    assert run.summary[sweep["metric"]["name"]] is not None
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert saved["trainer"]["lr"] == arguments["trainer.lr"]["value"]


def test_an_id_for_one_run_is_refused_in_a_sweep(home: Path) -> None:
    done = empg(home, "train", *SMALL, "-m", "seed=0,1", "run_dir=many", code=2, WANDB_RUN_ID="one")
    assert "WANDB_RUN_ID" in done.stderr
    assert not (home / "many").exists()
