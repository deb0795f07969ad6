"""What a run leaves behind when it goes back: a run folder of its own, `abandoned/1-after-update-000002`.

A rewind goes on from an older checkpoint than the newest, a restart from the beginning. Records are copied, so that
the branch can be shown, evaluated and gone on with; checkpoints are moved, so that the disk holds each once. The moves
stand in run.json before the first is made, and whoever opens the folder next finishes them: no kill leaves a mixture.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from empg_cli.errors import UserError
from empg_cli.files import sync
from empg_cli.invocation import from_here
from empg_cli.runs.checkpoint import FOLDER as CHECKPOINTS
from empg_cli.runs.checkpoint import all_checkpoints, updates_of
from empg_cli.runs.config_file import CONFIG_FILE
from empg_cli.runs.evaluations import FOLDER as EVALUATIONS
from empg_cli.runs.evaluations import drop_evaluations
from empg_cli.runs.history import LINES, METRICS
from empg_cli.runs.hold import nobody_reads
from empg_cli.runs.rows import read_rows
from empg_cli.runs.run_file import RUN_FILE, read_run_file, update_run_file
from empg_cli.runs.trajectories import FOLDER as TRAJECTORIES
from empg_cli.runs.trajectories import drop_trajectories

FOLDER = "abandoned"
ABANDONED = "abandoned"
"""Key of run.json: the branches, in the order in which they were left."""
LEAVING = "leaving"
"""Key of run.json: a branch that is on its way there."""
EVERYTHING = -1
"""After it come all updates, and what was there before the first."""
FILES = (CONFIG_FILE, RUN_FILE, *LINES, "metrics.csv", "summary.json")
FOLDERS = (EVALUATIONS, TRAJECTORIES)


def leave_branch(run_dir: Path, *, after: int) -> Path:
    """Set aside what came after this update; EVERYTHING, a checkpoint before the first update too. The rows after it
    stay until the run is opened.

    Returns:
        The branch.

    Raises:
        UserError: somebody reads one of the checkpoints.
        OSError: the disk refuses; the run is as it was.
    """
    number = 1 + max((int(path.name.split("-")[0]) for path in (run_dir / FOLDER).glob("[0-9]*-after-*")), default=0)
    name = f"{FOLDER}/{number}-after-update-{max(after, 0):06d}"
    temporary = run_dir / FOLDER / f".tmp-{number}"
    temporary.mkdir(parents=True)
    if (run_dir / CHECKPOINTS).is_symlink():  # to another disk, it may be, and none moves from one to the other at once
        there = (run_dir / CHECKPOINTS).resolve() / f"{FOLDER}-{uuid4().hex[:8]}"
        there.mkdir()
        (temporary / CHECKPOINTS).symlink_to(there)
    else:
        (temporary / CHECKPOINTS).mkdir()
    for file in FILES:
        if (run_dir / file).is_file():
            shutil.copy2(run_dir / file, temporary / file)
    for folder in FOLDERS:
        if (run_dir / folder).is_dir():
            shutil.copytree(run_dir / folder, temporary / folder, copy_function=_same_file)
    rows = read_rows(run_dir / METRICS)
    told = {"after": after, "until": max(rows, default=0), "on": datetime.now(UTC).isoformat(timespec="seconds")}
    update_run_file(temporary, (ABANDONED,))
    sync(temporary)
    temporary.replace(run_dir / name)
    update_run_file(run_dir, **{LEAVING: {"folder": name, **told}})
    finish_leaving(run_dir)
    return run_dir / name


def finish_leaving(run_dir: Path) -> None:
    """Move what is still to be moved; nothing where no branch is on its way.

    Raises:
        UserError: somebody reads one of the checkpoints.
    """
    for unfinished in (run_dir / FOLDER).glob(".tmp-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    facts = read_run_file(run_dir)
    leaving: dict[str, Any] | None = facts.get(LEAVING)
    if not leaving:
        return
    after = int(leaving["after"])
    for checkpoint in reversed(all_checkpoints(run_dir)):  # the newest first: what is left is a run that was killed
        if (updates_of(checkpoint) or 0) > after:
            with nobody_reads(checkpoint) as is_free:
                if not is_free:
                    raise UserError(f"{from_here(checkpoint)} is being read by another process: wait for it")
                checkpoint.replace(run_dir / str(leaving["folder"]) / CHECKPOINTS / checkpoint.name)
    if after == EVERYTHING:
        for file in (*LINES, "metrics.csv", "summary.json"):
            (run_dir / file).unlink(missing_ok=True)
        drop_evaluations(run_dir, EVERYTHING)
        drop_trajectories(run_dir, EVERYTHING)
    # What W&B shows is the branch that was left; this one gets a run there of its own.
    left = [*facts.get(ABANDONED, []), leaving]
    update_run_file(run_dir, (LEAVING, "wandb_id"), **{ABANDONED: left})


def branches(run_dir: Path) -> list[dict[str, Any]]:
    """`folder` (below the run's), `after`, `until`, `on` of each that was left."""
    return list(read_run_file(run_dir).get(ABANDONED, []))


def _same_file(source: str, target: str) -> None:
    """These files are replaced as a whole and never written into."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)
