"""`empg train dist=node` as a user runs it: the numbers of one process, and what happens when a rank dies or hangs.

One whole run is a part of `make test`; those that are disturbed are long.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.loop import train
from tests.support.same_rows import assert_same_rows, rows_of

UPDATES = 6
SMALL = (
    "experiment=smoke",
    f"trainer.updates={UPDATES}",
    "trainer.checkpoint_every=2",
    "trainer.keep_checkpoints=5",
    "trainer.tasks_per_update=4",
    "trainer.device=cpu",
    "logger.wandb.mode=disabled",
)
NODE = ("dist=node", "dist.processes=2")
LIMIT_S = 240


def started(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "empg_cli", "train", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    """The run of a single process."""
    train(load([*SMALL, f"run_dir={folder / 'one'}"]), folder / "one")
    assert len(rows_of(folder / "one")) == UPDATES + 1
    return folder / "one"


def ranks_of(command: subprocess.Popen[str]) -> dict[int, int]:
    """Process ids by rank."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdecimal()
                and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == command.pid
            ):
                values = dict(one.split("=", 1) for one in (entry / "environ").read_text().split("\0") if "=" in one)
                if "RANK" in values:
                    found[int(values["RANK"])] = int(entry.name)
        except OSError:
            continue
    return found


def ended(command: subprocess.Popen[str], limit_s: float = LIMIT_S) -> str:
    """What it has printed; none of its ranks is left."""
    pids = ranks_of(command).values()
    output, _ = command.communicate(timeout=limit_s)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    return output


def once(condition: Callable[[], bool], command: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert command.poll() is None, command.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_of_two_ranks_is_that_of_one_process(folder: Path, one: Path) -> None:
    place = folder / "two"
    running = started(*SMALL, *NODE, f"run_dir={place}")
    output = ended(running)
    assert running.returncode == 0, output
    assert "Traceback" not in output
    assert_same_rows(one, place)
    parts = sorted(path.name for path in place.glob("checkpoints/step-000006/optimizer/shard-*"))
    assert [part.partition("-model")[0] for part in parts] == ["shard-00001", "shard-00002"]
    assert (place / "ranks" / "rank-1.log").read_text().startswith("--- rank 1, ")


@pytest.mark.long
def test_a_rank_that_dies_or_hangs_costs_what_came_after_the_last_checkpoint(folder: Path, one: Path) -> None:
    place = folder / "disturbed"
    running = started(*SMALL, *NODE, "dist.restarts=2", "dist.timeout_s=15", f"run_dir={place}")
    once(lambda: (place / "checkpoints" / "step-000002").exists(), running)
    killed = ranks_of(running)[1]
    os.kill(killed, signal.SIGKILL)
    once(lambda: (place / "checkpoints" / "step-000004").exists(), running)
    (hung,) = {ranks_of(running)[1]} - {killed}
    os.kill(hung, signal.SIGSTOP)
    output = ended(running)
    assert running.returncode == 0, output
    first, second = (line for line in output.splitlines() if "going on from" in line)
    assert "rank 1 of 2 (phase " in first and "SIGKILL" in first and "step-000002" in first
    assert "rank 1 of 2 (phase " in second and "step-000004" in second and "restart 2 of 2" in second
    assert "Traceback" not in output
    assert_same_rows(one, place)
    assert (place / "checkpoints" / "step-000006" / "optimizer").is_dir()


@pytest.mark.long
def test_ctrl_c_saves_and_says_how_to_go_on(folder: Path, one: Path) -> None:
    place = folder / "stopped"
    running = started(*SMALL, *NODE, f"run_dir={place}")
    once(lambda: len(rows_of(place)) > 1, running)
    running.send_signal(signal.SIGINT)
    output = ended(running)
    assert running.returncode == 130, output
    assert f"--resume {place}" in output
    (newest,) = sorted((place / "checkpoints").iterdir())[-1:]
    done = json.loads((newest / "state.json").read_text())["update"]
    assert done == len(rows_of(place)) - 1, "what was done is saved"
    train(load([*SMALL, f"run_dir={place}", "resume=auto"]), place)  # one process, from the checkpoint of two
    assert_same_rows(one, place)
