"""`empg train dist=cluster` on two processes that the test starts as torchrun and srun would, on this machine's CPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.loop import train
from tests.e2e.test_ranks import LIMIT_S, SMALL
from tests.support.same_rows import assert_same_rows, rows_of

WORDS = (*SMALL, "dist=cluster", "dist.timeout_s=120", "run_dir=run")


def variables_of(launcher: str, rank: int, port: int) -> dict[str, str]:
    if launcher == "torchrun":
        place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank}
    else:
        place = {"SLURM_PROCID": rank, "SLURM_NTASKS": 2, "SLURM_LOCALID": rank, "SLURM_RESTART_COUNT": 1}
    return {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


class Two:
    """Ranks with a working directory each: only that of the first has the folder that the command names."""

    def __init__(self, launcher: str, folder: Path, *words: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.run = folder / "0" / "run"
        self.ranks = []
        for rank in (0, 1):
            (folder / str(rank)).mkdir(exist_ok=True)
            self.ranks.append(
                subprocess.Popen(
                    [sys.executable, "-m", "empg_cli", "train", *WORDS, *words],
                    cwd=folder / str(rank),
                    env={**os.environ, **variables_of(launcher, rank, port), "GLOO_SOCKET_IFNAME": "lo"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

    def after(self, updates: int) -> None:
        """Waits until so many are done, and the checkpoint of every second one is there."""
        deadline = time.monotonic() + LIMIT_S
        checkpoint = self.run / "checkpoints" / f"step-{updates - updates % 2:06d}"
        while len(rows_of(self.run)) < updates + 1 or not checkpoint.exists():
            assert all(rank.poll() is None for rank in self.ranks), self.ended()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ended(self) -> list[tuple[int, str]]:
        """Exit code and what was printed, by rank."""
        outputs = [rank.communicate(timeout=LIMIT_S)[0] for rank in self.ranks]
        return [(rank.returncode, output) for rank, output in zip(self.ranks, outputs, strict=True)]


def test_a_health_stop_ends_all_ranks_alike(tmp_path: Path) -> None:
    two = Two("torchrun", tmp_path, "benchmark.max_steps=1", "trainer.health.stop=true",
              "trainer.health.no_signal_updates=1")  # fmt: skip
    (code, output), (code_of_second, output_of_second) = two.ended()
    assert (code, code_of_second) == (3, 3), output + output_of_second
    assert "stopped by trainer.health after update 1, with a checkpoint" in output and "Traceback" not in output
    assert "trainer.health" not in output_of_second and "ERROR" not in output_of_second
    assert "Traceback" not in output_of_second


@pytest.mark.long
def test_a_run_by_any_launcher_is_the_run_of_one_process(tmp_path: Path) -> None:
    """Killed under torchrun, queued again by Slurm and stopped at its time limit, ended by one process."""
    two = Two("torchrun", tmp_path)
    two.after(2)
    two.ranks[1].kill()
    (code, output), _ = two.ended()
    assert code == 1, output
    assert "another rank is gone" in output and f"--resume {Path('run')}" in output
    assert "Traceback" not in output

    two = Two("slurm", tmp_path)
    two.after(4)
    two.ranks[1].send_signal(signal.SIGUSR1)
    (code, output), (code_of_second, output_of_second) = two.ended()
    assert (code, code_of_second) == (128 + signal.SIGUSR1, 128 + signal.SIGUSR1), output + output_of_second
    assert "To go on" in output and "To go on" not in output_of_second and "Traceback" not in output_of_second
    assert list((tmp_path / "1").iterdir()) == [], "the second makes no folder of its own"
    assert not list(two.run.glob("ranks/*")) and not list(two.run.glob(".seen-*"))
    parts = sorted(path.name for path in two.run.glob("checkpoints/step-000004/optimizer/shard-*"))
    assert [part.partition("-model")[0] for part in parts] == ["shard-00001", "shard-00002"]

    train(load([*SMALL, f"run_dir={two.run}", "resume=auto"]), two.run)
    train(load([*SMALL, f"run_dir={tmp_path / 'one'}"]), tmp_path / "one")
    assert_same_rows(tmp_path / "one", two.run)
