"""Checkpoints appear whole or not at all, and are checked before they are trusted.

`<run>/checkpoints/step-000120/` holds a Hugging Face model folder, `optimizer.pt` or the folder `optimizer`,
`state.json`, `history.json` (what the run had recorded until then, `runs.history`), and `manifest.json` with size and
SHA-256 of every file. It is written under a temporary name and renamed when complete. Whoever reads one holds it, so
that no run deletes it meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from pydantic import BeforeValidator

from empg_cli.disk import free_bytes, in_bytes, refusal
from empg_cli.errors import UserError
from empg_cli.files import paths_in, sync, temporaries
from empg_cli.invocation import from_here, restart_command, resume_command
from empg_cli.runs.best import Best, best_of, success_rates
from empg_cli.runs.config_file import CHECKPOINTS
from empg_cli.runs.history import HISTORY, STATE, seal
from empg_cli.runs.hold import nobody_reads
from empg_cli.runs.manifest import write_manifest
from empg_cli.runs.shapes import read_json
from empg_cli.types import Trajectory

log = logging.getLogger(__name__)

FOLDER = CHECKPOINTS
MODEL = "model"
"""Folder of the weights in a checkpoint."""
OPTIMIZER = "optimizer.pt"
PARTS = "optimizer"
"""In its place where several ranks wrote the checkpoint: a folder of their parts."""
ASIDE = ".aside-"
"""Before the name of a checkpoint while another of the same update takes its place."""


class NotSaved(UserError):  # noqa: N818 (a sentence for the user)
    """A run came to its end, and the disk did not take all of it."""

    exit_code = 1


def _number(value: Any) -> Any:
    """NaN and infinity are kept as text."""
    return float(value) if value in ("nan", "inf", "-inf") else value


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
    unlogged: dict[str, Annotated[float, BeforeValidator(_number)]] | None = None
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


def write_checkpoint(
    run_dir: Path, state: TrainState, write: Callable[[Path], None], *, keep: int, size: int | None = None
) -> Path | None:
    """Add a checkpoint and drop all but the newest `keep` and the best. Returns None (and logs why) when the disk
    refuses. What was logged before the checkpoint is on the disk before it appears.

    Where only the room for those that would be dropped is missing, they go first: the newest one stays. Nothing half
    written stays.

    Args:
        write: puts weights and optimiser into the folder that it is given.
        size: about how many bytes these are, to be said where there is no room; None = not known.
    """
    root = run_dir / FOLDER
    final = root / _name(state.update)
    try:
        try:
            _write_whole(final, state, write)
        except Exception as error:
            expendable = _expendable(run_dir, keep - 1) if keep > 1 else []
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
    drop_expendable(run_dir, keep)
    return final


def _write_whole(final: Path, state: TrainState, write: Callable[[Path], None]) -> None:
    temporary = final.with_name(f".tmp-{state.update:06d}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        sync(final.parents[1])  # has the name of the folder of checkpoints
        write(temporary)
        (temporary / STATE).write_text(json.dumps(_plain(state), indent=1, default=float, allow_nan=False))
        (temporary / HISTORY).write_text(json.dumps(seal(final.parents[1]), indent=1))
        write_manifest(temporary)
        if final.exists():  # aside, and not deleted first: a kill in between would leave neither
            put_back(final.parents[1])
            final.rename(final.with_name(f"{ASIDE}{final.name}"))
        temporary.rename(final)
        sync(final.parent)
        put_back(final.parents[1])
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        put_back(final.parents[1])
        raise


def put_back(run_dir: Path) -> None:
    """A checkpoint that went aside for another of the same update comes back where that one is not there, since a kill
    or an error came in between; where it is, the one aside goes."""
    for aside in paths_in(run_dir / FOLDER, f"{ASIDE}*"):
        final = aside.with_name(aside.name.removeprefix(ASIDE))
        if final.exists():
            _remove(aside)
        else:
            aside.rename(final)


def drop_expendable(run_dir: Path, keep: int) -> None:
    """Delete all but the newest `keep` and the best; again by a run that goes on, since a kill may have come between a
    save and this."""
    _drop(_expendable(run_dir, keep))


def _expendable(run_dir: Path, keep: int) -> list[Path]:
    """All but the newest `keep` and the best."""
    best = best_checkpoint(run_dir)
    return [path for path in all_checkpoints(run_dir)[:-keep] if best is None or path != best.checkpoint]


def _drop(checkpoints: Sequence[Path]) -> None:
    for path in checkpoints:
        _delete(path)


def not_saved(run_dir: Path, update: int) -> NotSaved:
    """What is left of a run that has ended after `update`, and what to do."""
    checkpoints, free, here = all_checkpoints(run_dir), in_bytes(free_bytes(run_dir / FOLDER)), from_here(run_dir)
    if checkpoints and load_state(checkpoints[-1]).update == update:
        left = "the weights are saved, a part of what was logged is not"
    elif checkpoints:
        left = f"the last checkpoint is {checkpoints[-1].name}, the weights after it are lost"
    else:
        left = "there is no checkpoint, its weights are lost"
    return NotSaved(
        f"the disk has not taken all of the run in {here}, which ended after update {update}: {left}. "
        f"{free} are free, and the log says what was refused; make room, then "
        f"`{resume_command(here) if checkpoints else restart_command(here)}` makes again what is missing"
    )


def warn_of_little_room(run_dir: Path, size: int, *, keep: int) -> None:
    """Before a run begins: say it where the disk has no room for its checkpoints.

    Args:
        size: bytes of one, about.
        keep: how many of the newest stay, beside the best; one more is there while it is written.
    """
    there = sum(file.stat().st_size for path in all_checkpoints(run_dir) for file in path.rglob("*") if file.is_file())
    needed, free = (keep + 2) * size - there, free_bytes(run_dir / FOLDER)
    if needed > free:
        log.warning(
            "the checkpoints will need about %s (%d of %s: newest, best, and one while it is written), and %s has "
            "%s free: those that do not fit are left out; make room, or lower trainer.keep_checkpoints (%d)",
            in_bytes(needed), keep + 2, in_bytes(size), from_here(run_dir), in_bytes(free), keep,
        )  # fmt: skip


def all_checkpoints(run_dir: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    found = [path for path in paths_in(run_dir / FOLDER, "step-*") if path.is_dir() and updates_of(path) is not None]
    return sorted(found)


def is_saved(run_dir: Path, update: int) -> bool:
    """There is a finished checkpoint of this update."""
    return (run_dir / FOLDER / _name(update)).is_dir()


def may_be_rewritten(run_dir: Path, update: int) -> bool:
    """There is one of this update, and nobody reads it at this moment."""
    path = run_dir / FOLDER / _name(update)
    if not path.is_dir():
        return False
    with nobody_reads(path) as is_free:
        return is_free


def _name(update: int) -> str:
    return f"step-{update:06d}"


def updates_of(checkpoint: Path) -> int | None:
    """Updates that a checkpoint has behind it, by its name; None for a name that is not of a checkpoint."""
    number = checkpoint.name.removeprefix("step-")
    return int(number) if number.isdecimal() and number.isascii() else None


def best_checkpoint(run_dir: Path) -> Best | None:
    """The checkpoint with the highest success rate in the run's own evaluations; of equal ones the earlier."""
    return best_of(run_dir, {updates_of(path) or 0: path for path in all_checkpoints(run_dir)})


def is_best_yet(run_dir: Path, update: int) -> bool:
    """The evaluation after this update, which has no checkpoint yet, solved more than that of each checkpoint."""
    rate, best = dict(success_rates(run_dir)).get(update), best_checkpoint(run_dir)
    return rate is not None and (best is None or rate > best.success_rate)


def _delete(checkpoint: Path) -> None:
    """At once for who looks, whenever the process dies; one that somebody reads stays until the next save."""
    with nobody_reads(checkpoint) as is_free, contextlib.suppress(OSError):
        if is_free:
            _remove(checkpoint)


def _remove(checkpoint: Path) -> None:
    """Under a name that nothing has yet, so that what is left of another does not stand in the way."""
    shutil.rmtree(checkpoint.rename(checkpoint.with_name(f".tmp-{uuid4().hex[:8]}")), ignore_errors=True)


def load_state(path: Path) -> TrainState:
    """NaN in what is unlogged is that of an update whose step was left out, in whatever form it was kept."""
    return read_json(path / STATE, TrainState, mend="give another checkpoint", finite=False)


def _plain(state: TrainState) -> dict[str, Any]:
    """For JSON, which has no NaN and no infinity."""
    values = dataclasses.asdict(state)
    if state.unlogged is not None:
        numbers = {name: float(value) for name, value in state.unlogged.items()}
        values["unlogged"] = {name: n if math.isfinite(n) else str(n) for name, n in numbers.items()}
    return values


def remove_leftovers(run_dir: Path) -> None:
    """Delete what a run that was killed while saving or writing has left."""
    for path in paths_in(run_dir / FOLDER, ".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (file for folder in (run_dir, *run_dir.glob("*/")) for file in temporaries(folder)):
        path.unlink(missing_ok=True)
