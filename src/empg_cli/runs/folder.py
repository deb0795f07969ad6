"""The folder of a run that begins or goes on: what it goes on from, what is cleared away, what the run was made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from empg_cli import config
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.invocation import from_here, resume_command
from empg_cli.runs.checkpoint import find_checkpoint, load_state, newest_good_checkpoint, remove_leftovers
from empg_cli.runs.config_file import CONFIG_FILE
from empg_cli.runs.evaluations import drop_evaluations
from empg_cli.runs.facts import (
    DATA,
    DATA_BEFORE,
    OUTSIDE,
    PROMPT_DATE,
    are_other_data,
    prompt_date,
    run_facts,
)
from empg_cli.runs.run_file import check_readable, read_run_file, update_run_file
from empg_cli.runs.trajectories import drop_trajectories

log = logging.getLogger(__name__)


class FolderTaken(UserError):  # noqa: N818 (a sentence for the user)
    """A new run was to begin in a folder that holds one."""


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


def open_folder(cfg: TrainConfig, run_dir: Path, *, data: Mapping[str, Any], task_kinds: Sequence[str]) -> OpenFolder:
    """Find the checkpoint that `resume` means, drop what comes after it, and write config.yaml and run.json.

    A folder that an older empg made has the format of today afterwards.

    Args:
        data: the benchmark's fingerprint.

    Raises:
        FolderTaken: the folder holds a run, and `resume` is null.
        CheckpointError: the checkpoint asked for cannot be used.
        FromTheFuture: a newer empg has made the folder.
    """
    check_readable(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    resume_from = checkpoint_to_resume(cfg.resume, run_dir)
    if resume_from:
        check_readable(resume_from.resolve().parents[1])
    if cfg.resume is None and (run_dir / "metrics.jsonl").exists():
        raise FolderTaken(
            f"{run_dir} already holds a run: go on with `{resume_command(from_here(run_dir))}`, or give another run_dir"
        )
    done = load_state(resume_from).update if resume_from else 0
    remove_leftovers(run_dir)
    kept = done if resume_from else -1  # a checkpoint before the first update stands after an evaluation
    drop_evaluations(run_dir, kept)
    drop_trajectories(run_dir, kept)
    config.write(cfg, run_dir / CONFIG_FILE)
    today = prompt_date(resume_from)
    facts, earlier = run_facts(cfg, data), read_run_file(run_dir).get(OUTSIDE)
    if resume_from and earlier not in (None, facts[OUTSIDE]):
        log.warning("the code from outside is not what this run began with: %s, now %s", earlier, facts[OUTSIDE])
    if resume_from:
        facts |= _data_before(read_run_file(resume_from.resolve().parents[1]), data)
    update_run_file(run_dir, **facts, **{PROMPT_DATE: today.isoformat()})
    return OpenFolder(run_dir, resume_from, done, str(data["source"]), tuple(task_kinds), today)


def _data_before(resumed: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data that the run was trained on up to here, where some of it is not that of today.

    Args:
        resumed: run.json of the run that goes on.
    """
    earlier, trained = list(resumed.get(DATA_BEFORE, [])), resumed.get(DATA)
    if are_other_data(trained, data):
        said = "the data is not what this run was trained on: digest %s, now %s: the run mixes two data sets"
        log.warning(said, resumed[DATA]["digest"], data["digest"])
        earlier.append(trained)
    return {DATA_BEFORE: earlier} if earlier else {}


def checkpoint_to_resume(resume: str | None, run_dir: Path) -> Path | None:
    """What `resume` means: null = nothing, auto = the newest good checkpoint of this folder if any, a path = that."""
    if resume is None:
        return None
    return newest_good_checkpoint(run_dir) if resume == "auto" else find_checkpoint(Path(resume))
