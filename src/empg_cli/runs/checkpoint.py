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

from empg_cli.disk import free_bytes, in_bytes, refusal
from empg_cli.errors import UserError
from empg_cli.files import paths_in, sync, temporaries
from empg_cli.invocation import from_here, resume_command
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


class NotSaved(UserError):  # noqa: N818 (a sentence for the user)
    """A run came to its end, and the disk did not take all of it."""

    exit_code = 1


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

    def count(self, trajectories: Sequence[Trajectory]) -> None:
        self.episodes += len(trajectories)
        self.env_steps += sum(len(trajectory.steps) for trajectory in trajectories)
        self.tokens += sum(trajectory.num_response_tokens for trajectory in trajectories)


def write_checkpoint(
    run_dir: Path, state: TrainState, write: Callable[[Path], None], *, keep: int, size: int | None = None
) -> Path | None:
    """Add a checkpoint and drop all but the newest `keep`. Returns None (and logs why) when the disk refuses.

    Where only the room for those that would be dropped is missing, they go first: the newest one stays. Nothing half
    written stays.

    Args:
        write: puts weights and optimiser into the folder that it is given.
        size: about how many bytes these are, to be said where there is no room; None = not known.
    """
    root = run_dir / FOLDER
    final = root / f"step-{state.update:06d}"
    try:
        try:
            _write_whole(final, state, write)
        except Exception as error:
            expendable = all_checkpoints(run_dir)[: 1 - keep] if keep > 1 else []
            if refusal(error) is None or not expendable:
                raise
            _drop(expendable)
            _write_whole(final, state, write)
    except Exception as error:
        if (why := refusal(error)) is None:
            raise
        needs = f"it needs about {in_bytes(size)}, " if size else ""
        said = "checkpoint %d was not saved to %s: %s; %s%s are free; older ones stay, the run goes on"
        log.error(said, state.update, from_here(root), why, needs, in_bytes(free_bytes(root)))
        return None
    _drop(all_checkpoints(run_dir)[:-keep])
    return final


def _write_whole(final: Path, state: TrainState, write: Callable[[Path], None]) -> None:
    temporary = final.with_name(f".tmp-{state.update:06d}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        (temporary / STATE).write_text(json.dumps(dataclasses.asdict(state), indent=1))
        _write_manifest(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _drop(checkpoints: Sequence[Path]) -> None:
    for path in checkpoints:
        shutil.rmtree(path, ignore_errors=True)


def not_saved(run_dir: Path, update: int) -> NotSaved:
    """What is left of a run that has ended after `update`, and what to do."""
    checkpoints, free = all_checkpoints(run_dir), in_bytes(free_bytes(run_dir))
    if checkpoints and load_state(checkpoints[-1]).update == update:
        left = "the weights are saved, a part of what was logged is not"
    elif checkpoints:
        left = f"the last checkpoint is {checkpoints[-1].name}, the weights after it are lost"
    else:
        left = "there is no checkpoint, its weights are lost"
    return NotSaved(
        f"the disk has not taken all of the run in {from_here(run_dir)}, which ended after update {update}: {left}. "
        f"{free} are free, and the log says what was refused; make room, then "
        f"`{resume_command(from_here(run_dir))}` makes again what is missing"
    )


def warn_of_little_room(run_dir: Path, size: int, *, keep: int) -> None:
    """Before a run begins: say it where the disk has no room for its checkpoints.

    Args:
        size: bytes of one, about.
        keep: how many stay; one more is there while it is written.
    """
    there = sum(file.stat().st_size for path in all_checkpoints(run_dir) for file in path.rglob("*") if file.is_file())
    needed, free = (keep + 1) * size - there, free_bytes(run_dir)
    if needed > free:
        log.warning(
            "the checkpoints will need about %s (%d of %s, one of them while it is written), and %s has %s free: "
            "those that do not fit are left out; make room, or lower trainer.keep_checkpoints (%d)",
            in_bytes(needed), keep + 1, in_bytes(size), from_here(run_dir), in_bytes(free), keep,
        )  # fmt: skip


def all_checkpoints(run_dir: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return [path for path in paths_in(run_dir / FOLDER, "step-*") if path.is_dir()]


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
    """Delete what a run that was killed while saving or writing has left."""
    for path in paths_in(run_dir / FOLDER, ".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (file for folder in (run_dir, *run_dir.glob("*/")) for file in temporaries(folder)):
        path.unlink(missing_ok=True)


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
