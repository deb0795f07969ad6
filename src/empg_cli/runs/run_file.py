"""`run.json`: facts about a run that outlive a process, the format of its folder among them.

Everything that reads a run folder asks here first, so that no folder of a newer empg is misread.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.files import write_atomically
from empg_cli.runs.format import refuse_the_future

RUN_FILE = "run.json"


def read_run_file(run_dir: Path) -> dict[str, Any]:
    """The facts; empty when there are none yet.

    Raises:
        UserError: the file is broken.
        FromTheFuture: a newer empg has made the folder.
    """
    path = run_dir / RUN_FILE
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not readable JSON ({error}); restore it, or delete it to start its facts anew"
        ) from error
    if not isinstance(facts, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(facts).__name__}")
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
