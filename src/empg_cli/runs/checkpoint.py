"""Checkpoints appear whole or not at all, and are checked before they are trusted.

`<run>/checkpoints/step-000120/` holds a Hugging Face model folder, `optimizer.pt`, `state.json`, `history.json` (what
the run had recorded until then, `runs.history`), and `manifest.json` with size and SHA-256 of every file. It is written
under a temporary name and renamed when complete. Whoever reads one holds it, so that no run deletes it meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from typing_extensions import TypedDict

from empg_cli.disk import free_bytes, in_bytes, refusal
from empg_cli.errors import DataError, UserError
from empg_cli.files import paths_in, sync, temporaries
from empg_cli.invocation import from_here, resume_command
from empg_cli.runs.best import Best, best_of, success_rates
from empg_cli.runs.evaluations import FOLDER as EVALUATIONS
from empg_cli.runs.history import HISTORY, seal, seal_faults
from empg_cli.runs.history import STATE as STATE
from empg_cli.runs.shapes import OPEN, read_json
from empg_cli.types import Trajectory

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
MODEL = "model"
"""Folder of the weights in a checkpoint."""
OPTIMIZER = "optimizer.pt"


class _File(TypedDict):
    bytes: int
    sha256: str


class _Manifest(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    files: dict[str, _File]


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
    _drop(_expendable(run_dir, keep))
    return final


def _write_whole(final: Path, state: TrainState, write: Callable[[Path], None]) -> None:
    temporary = final.with_name(f".tmp-{state.update:06d}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        (temporary / STATE).write_text(json.dumps(dataclasses.asdict(state), indent=1, default=float))
        (temporary / HISTORY).write_text(json.dumps(seal(final.parents[1]), indent=1))
        _write_manifest(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _expendable(run_dir: Path, keep: int) -> list[Path]:
    """All but the newest `keep` and the best."""
    best = best_checkpoint(run_dir)
    return [path for path in all_checkpoints(run_dir)[:-keep] if best is None or path != best.checkpoint]


def _drop(checkpoints: Sequence[Path]) -> None:
    for path in checkpoints:
        _delete(path)


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
    found = [path for path in paths_in(run_dir / FOLDER, "step-*") if path.is_dir() and updates_of(path) is not None]
    return sorted(found)


def is_saved(run_dir: Path, update: int) -> bool:
    """There is a finished checkpoint of this update."""
    return (run_dir / FOLDER / _name(update)).is_dir()


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


class Hold:
    """While it is held no run deletes or moves the checkpoint. Anybody may hold one, on a read-only disk too.

    Raises:
        CheckpointError: it is being deleted.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._file: BinaryIO | None = None
        try:
            self._file = (checkpoint / MANIFEST).open("rb")
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise CheckpointError(f"{from_here(checkpoint)} is being deleted by its run: ask again") from None
        except OSError:  # no manifest, which is a fault of its own; or a file system without locks
            pass

    def release(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def nobody_reads(checkpoint: Path) -> Iterator[bool]:
    """Whether no process holds it; while the block runs none will."""
    try:
        file = (checkpoint / MANIFEST).open("rb")
    except OSError:
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True


def _delete(checkpoint: Path) -> None:
    """At once for who looks, whenever the process dies; one that somebody reads stays until the next save."""
    with nobody_reads(checkpoint) as is_free, contextlib.suppress(OSError):
        if is_free:
            shutil.rmtree(checkpoint.replace(checkpoint.with_name(f".tmp-old-{checkpoint.name}")), ignore_errors=True)


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


def checkpoint_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = read_json(path / MANIFEST, _Manifest)["files"]
        if STATE not in files:
            return f"{MANIFEST} does not name {STATE}"
        for name, expected in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, not {expected['bytes']}"
            if _sha256(file) != expected["sha256"]:
                return f"{name} does not match its SHA-256"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read ({error})"
    except DataError as error:
        return f"unreadable {MANIFEST} ({error})"
    return None


def load_state(path: Path) -> TrainState:
    return read_json(path / STATE, TrainState, mend="give another checkpoint")


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
