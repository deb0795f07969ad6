"""Checkpoints appear whole or not at all, and are checked before they are trusted.

`<run>/checkpoints/step-000120/` holds a Hugging Face model folder, `optimizer.pt`, `state.json`, and `manifest.json`
with size and SHA-256 of every file. It is written under a temporary name and renamed when complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.files import sync
from empg_cli.types import Trajectory

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
MODEL = "model"
"""Folder of the weights in a checkpoint."""
OPTIMIZER = "optimizer.pt"
STATE = "state.json"


class CheckpointError(UserError):
    """A checkpoint that was asked for cannot be used. The message says which and why."""


@dataclass
class TrainState:
    """Where a run is. All randomness is keyed by (seed, update), so no generator state has to be stored."""

    update: int = 0
    """Updates done."""
    next_task: int = 0
    """Position in the endless shuffled stream of training tasks."""
    env_steps: int = 0
    episodes: int = 0
    tokens: int = 0
    """Sampled tokens."""
    unlogged: dict[str, float] | None = None
    """Metrics of these updates' last one, where the evaluation that belongs into its row is still to be played, at the
    beginning or because a stop cut it short; None = the row is logged."""

    @property
    def logged(self) -> int:
        """The last update that has its row; -1 where the evaluation before the first one is to be played."""
        return self.update if self.unlogged is None else self.update - 1

    def become(self, other: TrainState) -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(other, field.name))

    def count(self, trajectories: Sequence[Trajectory]) -> None:
        self.episodes += len(trajectories)
        self.env_steps += sum(len(trajectory.steps) for trajectory in trajectories)
        self.tokens += sum(trajectory.num_response_tokens for trajectory in trajectories)


def write_checkpoint(run_dir: Path, state: TrainState, write: Callable[[Path], None], *, keep: int) -> Path | None:
    """Add a checkpoint and drop all but the newest `keep`. Returns None (and logs why) when the disk refuses.

    Args:
        write: puts weights and optimiser into the folder that it is given.
    """
    root = run_dir / FOLDER
    final = root / _name(state.update)
    temporary = root / f".tmp-{state.update:06d}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        (temporary / STATE).write_text(json.dumps(dataclasses.asdict(state), indent=1, default=float))
        _write_manifest(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        log.error("checkpoint %d was not saved: %s; older ones are kept", state.update, error.strerror or error)
        return None
    for old in all_checkpoints(run_dir)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def all_checkpoints(run_dir: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(path for path in (run_dir / FOLDER).glob("step-*") if path.is_dir())


def is_saved(run_dir: Path, update: int) -> bool:
    """There is a finished checkpoint of this update."""
    return (run_dir / FOLDER / _name(update)).is_dir()


def _name(update: int) -> str:
    return f"step-{update:06d}"


def newest_good_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint whose files match their manifest; damaged ones are skipped with a warning."""
    for path in reversed(all_checkpoints(run_dir)):
        fault = checkpoint_fault(path)
        if fault is None:
            return path
        log.warning("skipping %s: %s", path, fault)
    return None


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest good one of a run folder.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if (path / STATE).is_file():
        if fault := checkpoint_fault(path):
            raise CheckpointError(f"{path} is damaged: {fault}")
        return path
    found = newest_good_checkpoint(path)
    if found is None:
        raise CheckpointError(f"{path} holds no usable checkpoint (looked for checkpoints/step-*/ with a manifest)")
    return found


def checkpoint_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files: dict[str, dict[str, Any]] = json.loads((path / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"unreadable {MANIFEST} ({error})"
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {expected['bytes']}"
        if _sha256(file) != expected["sha256"]:
            return f"{name} does not match its SHA-256"
    return None


def load_state(path: Path) -> TrainState:
    return TrainState(**json.loads((path / STATE).read_text()))


def remove_leftovers(run_dir: Path) -> None:
    """Delete what a run that was killed while saving has left."""
    for path in (run_dir / FOLDER).glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        sync(file)
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}, indent=1))
    sync(folder / MANIFEST)
    sync(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
