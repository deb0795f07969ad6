"""One row of metrics, and the file of rows that is the truth about a run: `metrics.jsonl`.

A line is one JSON object, `{"update": 12, "actor/kl_loss": 0.0031, ...}`, floats in full precision (shortest text
that reads back to the same bits). JSON has no NaN and no infinity, so such a value is written as `null`, and the row
says how many there were in `train/nonfinite`.

Two rows of one update (training first, its evaluation later) are two lines; `read_rows` merges them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from empg_cli.files import write_atomically

log = logging.getLogger(__name__)

Row = dict[str, float | None]
"""Metric name to value; None stands for a value that was NaN or infinite."""

NONFINITE = "train/nonfinite"

WALL_CLOCK_FAMILIES = ("timing_s/", "perf/", "time/")
"""The only families that may differ between two runs with the same seed."""


def clean_row(row: Mapping[str, object]) -> tuple[Row, list[str]]:
    """Plain numbers only (0-d tensors and numpy scalars too); NaN and infinity become None and are counted.

    Returns:
        The row, and the names of values that are not numbers at all and were left out.
    """
    clean: Row = {}
    rejected = []
    for key, value in row.items():
        try:
            number = int(value) if isinstance(value, int) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            rejected.append(key)
        else:
            clean[key] = number if math.isfinite(number) else None
    nonfinite = sum(value is None for value in clean.values())
    return (clean | {NONFINITE: nonfinite} if nonfinite else clean), rejected


def without_wall_clock(row: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs with the same seed must agree on, bit for bit."""
    return {key: value for key, value in row.items() if not key.startswith(WALL_CLOCK_FAMILIES)}


def read_rows(path: Path) -> dict[int, Row]:
    """Rows of a metrics file by update, in order of appearance; a missing file has none.

    A last line that a crash cut off is left out, and so is a line with anything but numbers.
    """
    rows: dict[int, Row] = {}
    for number, _, record in _records(path):
        if words := [key for key, value in record.items() if isinstance(value, str | list | dict)]:
            log.warning("%s line %d is not a row of metrics and is left out: %s is no number", path, number, words[0])
            continue
        rows.setdefault(record.pop("update"), {}).update(record)
    return rows


def drop_rows_from(path: Path, update: int) -> None:
    """Keep the rows before `update`, byte for byte; a missing file stays missing.

    Rows logged after the checkpoint that a run resumes from are about to be made again.
    """
    if not path.exists():
        return
    kept = [line for _, line, record in _records(path) if record["update"] < update]
    write_atomically(path, "".join(kept))


def _refused(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refused(text)


def _records(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number of the line, the line, what it holds."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            try:
                line = content.decode("utf-8")
                if not line.endswith("\n"):
                    raise ValueError("no line end")
                record = json.loads(line, parse_constant=_refused, parse_float=_finite)
                record["update"] = int(record["update"])
            except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
                log.warning("%s line %d is not a row and is left out: %s", path, number, error)
                continue
            yield number, line, record
