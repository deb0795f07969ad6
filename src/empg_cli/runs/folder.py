"""The folder of a run that begins or goes on: what it goes on from, what is cleared away, what the run was made of."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from empg_cli import config
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.files import write_atomically
from empg_cli.invocation import from_here, resume_command
from empg_cli.runs.abandoned import EVERYTHING, finish_leaving, leave_branch
from empg_cli.runs.checkpoint import (
    all_checkpoints,
    drop_expendable,
    load_state,
    put_back,
    remove_leftovers,
    updates_of,
)
from empg_cli.runs.config_file import CONFIG_DIGESTS, CONFIG_FILE, digest_of, find_run_folder, saved_values
from empg_cli.runs.evaluations import drop_evaluations
from empg_cli.runs.facts import (
    HARDWARE,
    MODEL,
    OUTSIDE,
    PROMPT_DATE,
    SETTLED,
    prompt_date,
    run_facts,
)
from empg_cli.runs.format import lookup
from empg_cli.runs.history import BEGAN, METRICS
from empg_cli.runs.hold import Hold
from empg_cli.runs.identity import CHANGES, bends_of
from empg_cli.runs.manifest import CheckpointError
from empg_cli.runs.mixture import refuse_unlike
from empg_cli.runs.provenance import CODE_BEFORE, WEIGHTS, code_before
from empg_cli.runs.rows import read_rows
from empg_cli.runs.run_file import RUN_FILE, check_readable, read_run_file, update_run_file
from empg_cli.runs.same_run import facts_of, refuse_another_run, refuse_unevaluated, settings_that_change, ways_out
from empg_cli.runs.trajectories import drop_trajectories
from empg_cli.runs.warm_start import WARM_START
from empg_cli.runs.which_checkpoint import hold_checkpoint

log = logging.getLogger(__name__)

RESTART = "restart"
"""A value of `resume`: begin anew in the folder of a run, which is set aside."""


class FolderTaken(UserError):  # noqa: N818 (a sentence for the user)
    """A new run was to begin in a folder that holds one."""


OF_THE_RUN_BEFORE = (CHANGES, BEGAN, CODE_BEFORE, WEIGHTS, MODEL, WARM_START, SETTLED, HARDWARE, "trackers")
"""Keys of run.json that a run which begins anew does not take over."""


SUMMARY = "summary.json"
OF_A_COMMAND = (CONFIG_FILE, RUN_FILE, SUMMARY)
"""Files that say what the last command on a run was, and how it ended."""


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """A run folder, ready for the rows, evaluations and checkpoints to come."""

    path: Path
    resume_from: Path | None
    """The checkpoint to go on from; None for a run that begins."""
    done: int
    """Updates that the checkpoint has behind it."""
    data_source: str
    """`official` or `generated`."""
    task_kinds: tuple[str, ...]
    """Of the training tasks."""
    prompt_date: date
    """What the prompts show."""
    bends: tuple[tuple[int, int], ...] = ()
    """Of the learning rate's schedule, see `facts.config_hash`."""
    before: Mapping[str, str | None] = field(default_factory=dict)
    """Of a run that goes on in its folder: the files of `OF_A_COMMAND` as they were; None = there was none."""
    held: Hold | None = None
    """Keeps `resume_from` from being deleted by its run; to be released when it is loaded."""


def refuse_taken(run_dir: Path) -> None:
    """Raises:
    FolderTaken: the folder holds a run, so that a new one cannot begin there.
    """
    if (run_dir / METRICS).exists() or all_checkpoints(run_dir):
        raise FolderTaken(
            f"{run_dir} already holds a run: go on with `{resume_command(from_here(run_dir))}`, or give another run_dir"
        )


def open_folder(cfg: TrainConfig, run_dir: Path, *, data: Mapping[str, Any], task_kinds: Sequence[str]) -> OpenFolder:
    """Find the checkpoint that `resume` means, set aside or drop what comes after it, write config.yaml and run.json.

    Whatever is to be refused is refused before anything is changed; only a checkpoint that a kill has left aside is put
    back first. A folder that an older empg made has the format of today afterwards.

    Args:
        run_dir: owned by this process.
        data: the benchmark's fingerprint.

    Raises:
        FolderTaken: the folder holds a run, and `resume` is null or another run's.
        CheckpointError: the checkpoint asked for cannot be used, or no checkpoint can.
        HistoryError: rows or evaluations before the checkpoint are not as the run wrote them.
        ConfigError: what defines the run is to change, or it would end without an evaluation.
        MixedStudy: the run is a cell of a study, and would not be made as the others are.
        FromTheFuture: a newer empg has made the folder.
    """
    check_readable(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    put_back(run_dir)
    if cfg.resume is None:
        refuse_taken(run_dir)
    finish_leaving(run_dir)
    held = None if cfg.resume in (None, RESTART) else _to_go_on_from(cfg, run_dir)
    try:
        return _opened(cfg, run_dir, held, data, task_kinds)
    except BaseException:
        if held is not None:
            held.release()
        raise


def _opened(
    cfg: TrainConfig, run_dir: Path, held: Hold | None, data: Mapping[str, Any], task_kinds: Sequence[str]
) -> OpenFolder:
    start = held.checkpoint if held is not None else None
    done = load_state(start).update if start else 0
    origin = _run_of(start, cfg, run_dir) if start else run_dir
    is_own = start is not None and origin == run_dir
    changes: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    if start:
        before = facts_of(origin)
        changes = refuse_another_run(cfg, origin, start, done, before, data)
        if saved_values(origin)["trainer"]["updates"] != cfg.trainer.updates:
            refuse_unevaluated(cfg, run_dir, start)
    elif cfg.resume == RESTART and (run_dir / CONFIG_FILE).is_file():
        settings_that_change(cfg, run_dir, 0)
    today, bends = prompt_date(start), bends_of(cfg, changes)
    facts: dict[str, Any] = {**run_facts(cfg, data, bends), PROMPT_DATE: today.isoformat()}
    refuse_unlike(run_dir, facts)

    has_left = _leave_later(cfg, run_dir, done, is_own=is_own)
    as_it_was = {name: _content(run_dir / name) for name in OF_A_COMMAND} if is_own else {}
    if has_left and is_own:  # the summary is that of the branch which is set aside
        as_it_was[SUMMARY] = None
    remove_leftovers(run_dir)
    drop_expendable(run_dir, cfg.trainer.keep_checkpoints)
    kept = done if start else EVERYTHING  # a checkpoint before the first update stands after an evaluation
    drop_evaluations(run_dir, kept)
    drop_trajectories(run_dir, kept)
    known = read_run_file(run_dir)
    if changes:
        facts[CHANGES] = changes
    if start and (code := before.get(OUTSIDE)) not in (None, facts[OUTSIDE]):
        log.warning("the code from outside is not what this run began with: %s, now %s", code, facts[OUTSIDE])
    if start:
        facts |= code_before(before)
    if start and not is_own:
        facts |= {BEGAN: {"run": str(origin.resolve()), "update": done}, MODEL: before.get(MODEL)}
        facts |= {key: before[key] for key in (SETTLED, WARM_START, HARDWARE) if key in before}
    text = config.as_yaml(cfg)
    digests = [*known.get(CONFIG_DIGESTS, []), digest_of(text.encode())]
    facts[CONFIG_DIGESTS] = list(dict.fromkeys(digests))
    gone = OF_THE_RUN_BEFORE if not start else () if changes else (CHANGES,)
    update_run_file(run_dir, gone, **facts)  # before the file that it vouches for
    write_atomically(run_dir / CONFIG_FILE, text)
    if start and done == cfg.trainer.updates:
        log.info("nothing to do: all %d updates are done; trainer.updates=N goes on to N", done)
    kinds = tuple(task_kinds)
    return OpenFolder(run_dir, start, done, str(data["source"]), kinds, today, tuple(bends), as_it_was, held)


@contextmanager
def putting_back(folder: OpenFolder) -> Iterator[Callable[[], None]]:
    """What the block is given says that the run goes on. Where the block ends before, in an error or by a signal, the
    folder says again what it said before the command: a mistake is not the run's from then on."""
    goes_on = False

    def note() -> None:
        nonlocal goes_on
        goes_on = True

    try:
        yield note
    except BaseException:
        for name, content in folder.before.items() if not goes_on else ():
            if content is None:
                (folder.path / name).unlink(missing_ok=True)
            else:
                write_atomically(folder.path / name, content)
        raise


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _to_go_on_from(cfg: TrainConfig, run_dir: Path) -> Hold | None:
    """None where `resume=auto` finds a folder without a run, or one that was killed before its first checkpoint."""
    assert cfg.resume is not None
    if cfg.resume != "auto":
        held = hold_checkpoint(Path(cfg.resume))
        try:
            if _run_of(held.checkpoint, cfg, run_dir) != run_dir:
                refuse_taken(run_dir)
        except UserError:
            held.release()
            raise
        return held
    if all_checkpoints(run_dir):
        try:
            return hold_checkpoint(run_dir)
        except CheckpointError as error:
            raise CheckpointError(f"{error}\n{ways_out(run_dir)}") from None
    newest = max(read_rows(run_dir / METRICS), default=0)
    if had_a_checkpoint(run_dir, newest):
        what = f"has rows up to update {newest} and no checkpoint: they were deleted, or could not be saved"
        raise CheckpointError(f"{from_here(run_dir)} {what}\n{ways_out(run_dir)}")
    return None


def _run_of(checkpoint: Path, cfg: TrainConfig, run_dir: Path) -> Path:
    """The run that goes on: `run_dir` as it is written where that is the one, whatever else leads there."""
    origin = run_dir if cfg.resume == "auto" else find_run_folder(checkpoint)
    return run_dir if origin.samefile(run_dir) else origin


def had_a_checkpoint(run_dir: Path, newest: int) -> bool:
    """Rows that a run logs only after it has saved.

    Args:
        newest: the newest update that has a row.
    """
    if not newest or not (run_dir / CONFIG_FILE).is_file():
        return False
    every = lookup(saved_values(run_dir), "trainer.checkpoint_every")
    return (isinstance(every, int) and 0 < every < newest) or "updates" in _summary(run_dir)


def _summary(run_dir: Path) -> dict[str, Any]:
    try:
        found = json.loads((run_dir / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _leave_later(cfg: TrainConfig, run_dir: Path, done: int, *, is_own: bool) -> bool:
    """Set aside what came later: in a rewind, behind a checkpoint that is damaged by now, for a restart. A run that was
    killed has no later checkpoint: it makes the same rows again. Returns whether anything was set aside.

    Args:
        is_own: the run goes on from a checkpoint of its own.
    """
    is_restarted = cfg.resume == RESTART
    after = EVERYTHING if is_restarted else done
    has_later = any((updates_of(path) or 0) > after for path in all_checkpoints(run_dir))
    leaves = (has_later and (is_own or is_restarted)) or (is_restarted and (run_dir / METRICS).exists())
    if leaves:
        left = leave_branch(run_dir, after=after)
        log.info("what came after update %d is set aside in %s", done, from_here(left))
    return leaves
