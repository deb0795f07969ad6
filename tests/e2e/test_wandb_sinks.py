"""W&B for real, in processes of their own: nothing prompts, nothing hangs, and the .wandb file holds the run."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.offline_wandb import offline_files, read_offline_run

pytest.importorskip("wandb", reason="wandb is not installed (pip install wandb)")

PATIENCE_S = 300
"""A run that prompts or hangs is stopped, and fails its test, after this."""

PLAY = """
import json, logging, sys
from pathlib import Path
from types import SimpleNamespace
from empg_cli.observe import wandb_sink
from empg_cli.runs.histograms import Histogram
from empg_cli.observe.identity import RunIdentity
from empg_cli.observe.sinks import open_sinks

logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
run_dir, mode, start, end, resume, exit_code = json.loads(sys.argv[1])
wandb_sink.WandbSink.__init__.__kwdefaults__["init_timeout_s"] = 3.0
wandb = SimpleNamespace(mode=mode, project="empg", entity=None, notes=None, tags=["mine"], artifacts=[])
fan = open_sinks(
    SimpleNamespace(trackers=["wandb"], csv=False, wandb=wandb),
    Path(run_dir),
    run_config={"seed": 3, "algo": {"name": "empg", "k": 1.0}, "hub": {"api_key": "sesame"}},
    identity=RunIdentity.of_seed("alfworld-empg", 3, tags=["alfworld", "empg"]),
    resume_from_update=start if resume else None,
)
for update in range(start, end):
    row = {"train/update": update, "env/steps": 64 * update, "actor/kl_loss": update / 7}
    if update % 5 == 0:
        row["eval/success_rate"] = 0.5 - abs(update - 5) / 100
    if update == 3:
        row["actor/entropy"] = float("nan")
    fan.histograms(update, {"hist/weight": Histogram(0.5, 1.5, (update, 2))})
    fan.log(update, row)
fan.summary({"best/success_rate": 0.5, "best/update": 5})
fan.close(exit_code)
print("pointer:", fan.pointers.get("wandb"))
print("imported:", "wandb" in sys.modules)
"""


@pytest.fixture
def environment(tmp_path):
    """A machine where nobody ever logged in."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC", "XDG"))}
    return kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "WANDB_X_DISABLE_STATS": "true"}


def play(
    environment: dict[str, str],
    run_dir: Path,
    mode: str = "auto",
    *,
    start: int = 0,
    end: int = 12,
    resume: bool = False,
    exit_code: int = 0,
) -> tuple[str, str]:
    """Standard output and error of a run in a process without a terminal."""
    arguments = json.dumps([str(run_dir), mode, start, end, resume, exit_code])
    done = subprocess.run(
        [sys.executable, "-c", PLAY, arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout, done.stderr


def test_without_login_or_terminal_it_logs_offline_and_says_nothing(environment, tmp_path):
    run_dir = tmp_path / "run"
    stdout, stderr = play(environment, run_dir, exit_code=143)
    (path,) = offline_files(run_dir)
    assert re.search(rf"pointer: (\S*/)?wandb sync {path.parent}\n", stdout)
    assert stderr == ""

    run = read_offline_run(path)
    assert [row["_step"] for row in run.history] == list(range(12))
    assert [row["actor/kl_loss"] for row in run.history] == [update / 7 for update in range(12)]
    assert [row["env/steps"] for row in run.history] == [64 * update for update in range(12)]
    assert "actor/entropy" not in run.history[3]  # NaN is left out, and counted
    assert run.history[3]["train/nonfinite"] == 1
    for update in (0, 11):
        histogram = {key: run.history[update][f"hist/weight.{key}"] for key in ("_type", "bins", "values")}
        assert histogram == {"_type": "histogram", "bins": [0.5, 1.0, 1.5], "values": [update, 2]}
    assert len((run_dir / "histograms.jsonl").read_text().splitlines()) == 12
    assert run.exit_code == 143
    assert (run.run.display_name, run.run.run_group, run.run.job_type) == ("alfworld-empg-s3", "alfworld-empg", "train")
    assert list(run.run.tags) == ["alfworld", "empg", "mine"]
    assert run.run.run_id == json.loads((run_dir / "run.json").read_text())["wandb_id"]
    assert {key: run.config[key] for key in ("seed", "algo", "hub")} == {
        "seed": 3,
        "algo": {"name": "empg", "k": 1.0},
        "hub": {"api_key": "***"},
    }
    assert b"sesame" not in path.read_bytes()
    assert run.metrics["*"].step_metric == "train/update"
    assert run.metrics["eval/*"].step_metric == "env/steps"
    assert run.summary["eval/success_rate"] == {"max": 0.5}
    assert run.summary["best/update"] == 5


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_on_a_terminal_without_login_nothing_prompts(mode, environment, tmp_path):
    master, terminal = pty.openpty()
    arguments = json.dumps([str(tmp_path / "run"), mode, 0, 3, False, 0])
    done = subprocess.run(
        [sys.executable, "-c", PLAY, arguments],
        env=environment | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(terminal)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0, shown
    lines = [line.strip() for line in shown.splitlines()]
    (path,) = offline_files(tmp_path / "run")
    warnings = [line for line in lines if line.startswith("WARNING")]
    assert len(warnings) == (1 if mode == "online" else 0)
    assert all("nobody is logged in" in line for line in warnings)
    assert [re.sub(r"\S*/wandb sync", "wandb sync", line) for line in lines if line not in warnings] == [
        f"pointer: wandb sync {path.parent}",
        "imported: True",
    ]
    assert len(read_offline_run(path).history) == 3


def test_a_server_that_does_not_answer_means_offline_with_one_warning(environment, tmp_path):
    unreachable = environment | {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    stdout, stderr = play(unreachable, tmp_path / "run", "auto", end=4)
    (path,) = offline_files(tmp_path / "run")
    assert f"wandb sync {path.parent}" in stdout
    (warning,) = stderr.splitlines()
    assert "W&B cannot be reached" in warning
    assert "a" * 40 not in stdout + stderr
    run = read_offline_run(path)
    assert len(run.history) == 4
    assert run.run.run_id == json.loads((tmp_path / "run" / "run.json").read_text())["wandb_id"]


def test_a_malformed_key_means_offline(environment, tmp_path):
    _, stderr = play(environment | {"WANDB_API_KEY": "short"}, tmp_path / "run", "auto", end=3)
    (path,) = offline_files(tmp_path / "run")
    assert len(read_offline_run(path).history) == 3
    assert len([line for line in stderr.splitlines() if line.startswith("WARNING")]) <= 1


def test_a_resumed_offline_run_holds_its_whole_past_under_the_same_id(environment, tmp_path):
    run_dir = tmp_path / "run"
    play(environment, run_dir, "offline", end=10, exit_code=137)
    play(environment, run_dir, "offline", start=6, end=12, resume=True)
    first, second = (read_offline_run(path) for path in offline_files(run_dir))
    assert second.run.run_id == first.run.run_id
    assert [row["_step"] for row in second.history] == list(range(12))
    assert [row["actor/kl_loss"] for row in second.history] == [update / 7 for update in range(12)]
    assert second.exit_code == 0


@pytest.mark.parametrize(("mode", "variable"), [("disabled", None), ("auto", "disabled")])
def test_disabled_is_not_imported_and_leaves_nothing(mode, variable, environment, tmp_path):
    stdout, stderr = play(environment | ({"WANDB_MODE": variable} if variable else {}), tmp_path / "run", mode)
    assert "imported: False" in stdout
    assert "pointer: None" in stdout
    assert stderr == ""
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "histograms.jsonl",
        "metrics.jsonl",
        "summary.json",
    ]
