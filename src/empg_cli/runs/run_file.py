"""`run.json`: facts about a run that outlive a process, the format of its folder among them.

Everything that reads a run folder asks here first, so that no folder of a newer empg is misread.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from typing_extensions import TypedDict

from empg_cli.files import write_atomically
from empg_cli.runs.format import refuse_the_future
from empg_cli.runs.shapes import OPEN, read_json

RUN_FILE = "run.json"
IsoDate = Annotated[str, AfterValidator(lambda text: date.fromisoformat(text).isoformat())]


class RunFacts(TypedDict, total=False):
    """What is read of the file; the format has a reader of its own (`runs/format.py`)."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    seed: int
    config_hash: str | None
    prompt_date: IsoDate
    wandb_id: str | None
    data: dict[str, Any]
    data_before: list[dict[str, Any]]
    advantage: dict[str, Any]
    outside: dict[str, Any]


def read_run_file(run_dir: Path) -> dict[str, Any]:
    """The facts; empty when there are none yet.

    Raises:
        DataError: the file is broken.
        FromTheFuture: a newer empg has made the folder.
    """
    path = run_dir / RUN_FILE
    if not path.exists():
        return {}
    facts = dict(read_json(path, RunFacts, mend="restore it, or delete it to start its facts anew"))
    refuse_the_future(run_dir, facts)
    return facts


def update_run_file(run_dir: Path, **facts: Any) -> None:
    """Add or replace facts, keeping the others."""
    write_atomically(run_dir / RUN_FILE, json.dumps(read_run_file(run_dir) | facts, indent=2) + "\n")


def check_readable(run_dir: Path) -> int:
    """The format of a run folder.

    Raises:
        FromTheFuture: a newer empg has made it.
    """
    return refuse_the_future(run_dir, read_run_file(run_dir))
