"""What a warm start leaves in the run folder: its losses, and while it lasts the state to go on from."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from empg_cli.files import write_atomically
from empg_cli.runs.patience import Patience
from empg_cli.runs.row_file import RowFile
from empg_cli.runs.shapes import OPEN, read_json_lines

RECORD = "warm_start.jsonl"
STATE = "warm-start.pt"
"""`learner/course.py` knows its form."""


WARM_START = "warm_start"
"""Key of run.json: which warm start of the cache the run began with (`learner.warm_start.warm_start_key`)."""


class WarmStartRow(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    step: int
    """Optimiser steps done; 0 = before the first."""
    loss: NotRequired[float]
    """Of this step's demonstrations, before it: nats per token that trains, by its weight."""
    lr: NotRequired[float]
    held_out_loss: NotRequired[float]
    """The same of the demonstrations that never train."""


def read_record(folder: Path) -> list[WarmStartRow]:
    """Nothing where there is no record.

    Raises:
        DataError: a line holds something else.
    """
    path = folder / RECORD
    return list(read_json_lines(path, WarmStartRow)) if path.is_file() else []


class WarmStartRecord:
    """Appends rows to the record of a warm start that begins or goes on."""

    def __init__(self, run_dir: Path, done: int) -> None:
        """
        Args:
            done: steps that are not done again; what was measured after them goes.
        """
        kept = [row for row in read_record(run_dir) if row["step"] < done or (row["step"] == done and "loss" in row)]
        write_atomically(run_dir / RECORD, "".join(json.dumps(row) + "\n" for row in kept))
        self._patience = Patience("losses of the warm start", str(run_dir))
        self._file = RowFile(run_dir / RECORD)

    def add(self, step: int, **values: float) -> None:
        """Of `WarmStartRow`."""
        row = {"step": step, **values}
        self._patience.do(partial(self._file.append, json.dumps(row) + "\n"))

    def close(self) -> None:
        self._patience.settle()
        self._file.close()
