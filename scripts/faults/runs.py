"""A tiny run to break, and what must be equal between two runs of one history."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from empg_cli.runs.rows import without_wall_clock
from scripts.faults.case import check, differences, succeeded
from scripts.faults.process import forked

TINY = (
    "train",
    "experiment=smoke",
    "model=tiny-scratch",
    "model.arch={hidden_size:32,num_layers:1,num_heads:2,num_kv_heads:1,mlp_size:32}",
    "benchmark.eval_tasks=2",
    "trainer.eval_every=1",
    "trainer.keep_checkpoints=9",
    "logger.console=plain",
    "logger.trajectories=2",
)
"""A second of work for three updates."""
HYDRAS_OWN = ("train.log", ".hydra", ".owner")


def straight(shared: Path, updates: int) -> Path:
    """A run of so many updates that nothing has disturbed, made once."""
    folder = shared / f"straight-{updates}"
    if not folder.exists():
        succeeded(forked(*TINY, f"trainer.updates={updates}", f"run_dir={folder}", folder=shared))
    return folder


def copied(run: Path, folder: Path) -> Path:
    """The run, as `run` in the case's own folder."""
    shutil.copytree(run, folder / "run")
    return folder / "run"


def killed_before(run: Path, update: int) -> Path:
    """The same run as a kill before the checkpoint of this update would have left it, its rows logged."""
    shutil.rmtree(run / "checkpoints" / f"step-{update:06d}")
    (run / "summary.json").unlink(missing_ok=True)
    return run


def rows(run: Path) -> list[dict[str, Any]]:
    """As logged, without wall clocks."""
    return [without_wall_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def digests(run: Path, without: tuple[str, ...] = HYDRAS_OWN) -> dict[str, str]:
    """Of every file but Hydra's own."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    names = [path.relative_to(run).as_posix() for path in files]
    return {
        name: hashlib.sha256((run / name).read_bytes()).hexdigest()
        for name in names
        if name.split("/")[0] not in without
    }


def weights(run: Path, update: int) -> str:
    return digests(run / "checkpoints" / f"step-{update:06d}" / "model")["model.safetensors"]


def same_history(run: Path, other: Path, update: int) -> None:
    """Rows, evaluations and the weights after this update are equal bit for bit."""
    parted = differences(rows(other), rows(run))
    check(not parted, f"rows of metrics: {parted}")
    for file in sorted(path.name for path in (other / "evaluations").iterdir()):
        equal = (run / "evaluations" / file).exists() and (
            (run / "evaluations" / file).read_bytes() == (other / "evaluations" / file).read_bytes()
        )
        check(equal, f"evaluation {file} is another one")
    check(weights(run, update) == weights(other, update), f"other weights after update {update}")
