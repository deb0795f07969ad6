"""Whether a run that goes on is the one that it was: its settings, its data, what it has recorded so far."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empg_cli.config.outside import addresses, repeated
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.invocation import eval_command, from_here, restart_command, resume_command
from empg_cli.runs.checkpoint import all_checkpoints, load_state, updates_of
from empg_cli.runs.config_file import saved_values
from empg_cli.runs.evaluations import was_evaluated
from empg_cli.runs.facts import DATA, demonstrations_digest
from empg_cli.runs.history import HistoryError, check_history, first_update, history_faults
from empg_cli.runs.identity import CHANGES, Change, bends_of, differences, other_data, with_changes
from empg_cli.runs.provenance import DEMONSTRATIONS
from empg_cli.runs.run_file import RUN_FILE, read_run_file

log = logging.getLogger(__name__)


def ways_out(run_dir: Path) -> str:
    again = restart_command(from_here(run_dir))
    return f"Put one back from a copy; or begin anew, which sets aside what is there:  {again}"


def facts_of(origin: Path) -> dict[str, Any]:
    """run.json of the run that goes on: without it nobody knows its data and weights, nor the date in its prompts."""
    if not (origin / RUN_FILE).is_file():
        again = restart_command(from_here(origin))
        raise UserError(
            f"{from_here(origin)} has no {RUN_FILE}, which says what the run is made of: put it back from a copy\n"
            f"Or begin anew, which sets aside what is there:  {again}"
        )
    return read_run_file(origin)


def refuse_another_run(
    cfg: TrainConfig, origin: Path, start: Path, done: int, before: Mapping[str, Any], data: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """`changes` of the run from here on, where what defines it is as it was.

    Args:
        before: run.json of the run that goes on.
    """
    changes = settings_that_change(cfg, origin, done)
    trained = before.get(DATA)
    if trained and (said := other_data(trained, data)) is not None:
        what = f"is not the data that the run was trained on: {said}"
        hint = "give the data that it was trained on, or start a new run"
        if trained["source"] == data["source"] == "generated":
            hint = f"this empg makes others of the same settings; go on with that of commit {before.get('commit')}"
        title = f"{from_here(origin)} cannot be resumed like this"
        raise ConfigError(title, [Problem("benchmark.data_dir", what, hint=hint)])
    imitated, now = before.get(DEMONSTRATIONS), demonstrations_digest(cfg)
    if imitated != now:
        what = f"is not the file that the warm start imitated: digest {imitated}, now {now}"
        hint = "give that file, or start a new run"
        title = f"{from_here(origin)} cannot be resumed like this"
        raise ConfigError(title, [Problem("trainer.warm_start.file", what, hint=hint)])
    first = first_update(before)
    try:
        check_history(origin, start, first=first, done=done)
    except HistoryError as error:
        raise HistoryError(f"{error}\n{_older(origin, start, first)}") from None
    for change in changes:
        log.info("%s", change)
    all_of_them = with_changes(before.get(CHANGES, []), changes, done=done)
    bends = any(change.key == "trainer.updates" for change in changes)
    if bends and any(update == done for update, _ in bends_of(cfg, all_of_them)):
        log.warning("the learning rate follows the schedule of %d updates from here on; a run of one length has other "
                    "rates, so this one is not grouped with those", cfg.trainer.updates)  # fmt: skip
    return all_of_them


def refuse_unevaluated(cfg: TrainConfig, run_dir: Path, start: Path) -> None:
    """An evaluation ends every run. Where the checkpoint becomes the end, and its row is logged without one, nothing is
    left to do that would play it.

    Raises:
        ConfigError: that is so.
    """
    state = load_state(start)
    if state.update == cfg.trainer.updates and state.unlogged is None and not was_evaluated(run_dir, state.update):
        what = f"would end the run without an evaluation: update {state.update} is done and was not evaluated here"
        measure = eval_command(from_here(start), repeated(addresses(cfg.model_dump())))
        hint = f"ask for {state.update + 1} or more; what the checkpoint can do says  {measure}"
        title = f"{from_here(run_dir)} cannot end there"
        raise ConfigError(title, [Problem("trainer.updates", what, str(state.update), hint)])


def settings_that_change(cfg: TrainConfig, run: Path, done: int) -> list[Change]:
    """Settings that are others than those of the run so far.

    Raises:
        ConfigError: one of them defines the run.
    """
    problems, changes = differences(saved_values(run), cfg, done=done, made=read_run_file(run).get(CHANGES, []))
    if problems:
        raise ConfigError(f"{from_here(run)} cannot be resumed like this", problems)
    return changes


def _older(origin: Path, start: Path, first: int) -> str:
    """What helps where the record is broken."""
    for path in reversed(all_checkpoints(origin)):
        done = updates_of(path) or 0
        if path.name < start.name and not history_faults(origin, path, first=first, done=done):
            command = resume_command(from_here(path))
            return f"Put them back from a copy; or go on from before the fault:  {command}"
    return ways_out(origin).replace("Put one back", "Put them back")
