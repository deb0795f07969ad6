"""`run.json`: facts about a run that outlive a process, the format of its folder among them.

Everything that reads a run folder asks here first, so that no folder of a newer empg is misread. The file carries a
digest of itself (`checksum`), so that a flipped bit is no other fact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from typing_extensions import TypedDict

from empg_cli.errors import DataError
from empg_cli.files import write_atomically
from empg_cli.runs.format import refuse_the_future
from empg_cli.runs.shapes import OPEN, read_json

RUN_FILE = "run.json"
CHECKSUM = "checksum"
IsoDate = Annotated[str, AfterValidator(lambda text: date.fromisoformat(text).isoformat())]


class RunFacts(TypedDict, total=False):
    """What is read of the file; the format has a reader of its own (`runs/format.py`)."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    seed: int
    config_hash: str | None
    prompt_date: IsoDate
    wandb_id: str | None
    trackers: dict[str, Any]
    data: dict[str, Any]
    data_before: list[dict[str, Any]]
    advantage: dict[str, Any]
    outside: dict[str, Any]


def read_run_file(run_dir: Path) -> dict[str, Any]:
    """The facts; empty when there are none yet.

    Raises:
        DataError: the file is broken, or was changed by something else.
        FromTheFuture: a newer empg has made the folder.
    """
    path = run_dir / RUN_FILE
    if not path.exists():
        return {}
    facts = dict(read_json(path, RunFacts, mend="put it back from a copy"))
    refuse_the_future(run_dir, facts)
    if facts.pop(CHECKSUM, digest := _digest(facts)) != digest:
        raise DataError(
            f"{path} is not what empg wrote: put it back from a copy; if you have changed it yourself and mean it, "
            f"delete its line `{CHECKSUM}`"
        )
    return facts


def update_run_file(run_dir: Path, without: Sequence[str] = (), /, **facts: Any) -> None:
    """Add or replace facts, keeping the others.

    Args:
        without: facts that are no more.
    """
    told = {key: value for key, value in (read_run_file(run_dir) | facts).items() if key not in without}
    write_atomically(run_dir / RUN_FILE, json.dumps(told | {CHECKSUM: _digest(told)}, indent=2) + "\n")


def check_readable(run_dir: Path) -> int:
    """The format of a run folder.

    Raises:
        FromTheFuture: a newer empg has made it.
    """
    return refuse_the_future(run_dir, read_run_file(run_dir))


def _digest(facts: Mapping[str, Any]) -> str:
    """Of all but the digest itself."""
    told = {key: value for key, value in facts.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
