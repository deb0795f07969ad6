"""Which checkpoint a path means: itself, or the newest, the best or a numbered one of a run; checked, then read."""

from __future__ import annotations

import logging
from pathlib import Path

from empg_cli.invocation import from_here
from empg_cli.runs.checkpoint import all_checkpoints, best_checkpoint, updates_of
from empg_cli.runs.evaluations import FOLDER as EVALUATIONS
from empg_cli.runs.history import STATE, seal_faults
from empg_cli.runs.hold import Hold
from empg_cli.runs.manifest import MANIFEST, CheckpointError, checkpoint_fault

log = logging.getLogger(__name__)


def hold_checkpoint(path: Path, which: str | int | None = None) -> Hold:
    """The checkpoint that a path means, checked and held: itself, or one of a run folder.

    Args:
        which: of a run folder: `last` or None, the newest good one; `best`, by the run's evaluations; a number of
            updates.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if (path / STATE).is_file() or (path / MANIFEST).is_file():
        if which is not None:
            raise CheckpointError(f"checkpoint={which} is not read when {from_here(path)} is a checkpoint already")
        return _checked(path)
    match which:
        case None | "last":
            return _newest_good(path)
        case "best":
            best = best_checkpoint(path)
            if best is None:
                raise CheckpointError(f"{from_here(path)} has no checkpoint that it has evaluated: {_list_of(path)}")
            newest, about = all_checkpoints(path)[-1], f"{EVALUATIONS}/"
            faults = [fault for fault in seal_faults(path, newest) if fault.startswith(about)]
            if faults:
                lines = "".join(f"\n  {fault}" for fault in faults)
                raise CheckpointError(f"which checkpoint of {from_here(path)} is the best cannot be told:{lines}")
            log.info("the best checkpoint: %s", best)
            return _checked(best.checkpoint)
        case _:
            found = [checkpoint for checkpoint in all_checkpoints(path) if updates_of(checkpoint) == int(which)]
            if not found:
                raise CheckpointError(f"{from_here(path)} has no checkpoint of update {which}: {_list_of(path)}")
            return _checked(found[0])


def find_checkpoint(path: Path) -> Path:
    """The same by its path alone, for one that nobody deletes.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    with hold_checkpoint(path) as held:
        return held.checkpoint


def _checked(path: Path) -> Hold:
    held = Hold(path)
    if fault := checkpoint_fault(path):
        held.release()
        raise CheckpointError(f"{from_here(path)} is damaged: {fault}")
    return held


def _newest_good(run_dir: Path) -> Hold:
    """Damaged ones are skipped with a warning."""
    faults: list[str] = []
    while True:
        seen = all_checkpoints(run_dir)
        for path in reversed(seen):
            try:
                held = _checked(path)
            except CheckpointError as error:
                faults.append(str(error))
                continue
            for fault in faults:
                log.warning("skipping %s", fault)
            return held
        if all(path.exists() for path in seen):  # else its run has saved a newer one meanwhile
            looked = " (looked for checkpoints/step-*/ with a manifest)" if not faults else ":"
            lines = "".join(f"\n  {fault}" for fault in dict.fromkeys(faults))
            raise CheckpointError(f"{from_here(run_dir)} holds no usable checkpoint{looked}{lines}")


def _list_of(run_dir: Path) -> str:
    there = ", ".join(str(updates_of(path)) for path in all_checkpoints(run_dir))
    return f"there are those of {there}" if there else "it has none"
