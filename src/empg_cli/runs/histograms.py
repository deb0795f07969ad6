"""`histograms.jsonl`, a line per update: `{"update": 9, "hist/weight": {"low": 0.5, "high": 1.4, "counts": [3]}}`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import AfterValidator, Field, NonNegativeInt
from typing_extensions import TypedDict

from empg_cli.runs.row_file import RowFile
from empg_cli.runs.rows import Row
from empg_cli.runs.shapes import OPEN, check_shape, read_json_lines

FILE = "histograms.jsonl"


class _Bins(TypedDict):
    low: float
    high: float
    counts: Annotated[list[NonNegativeInt], Field(min_length=1)]


def _drawable(bins: _Bins) -> _Bins:
    if not (bins["low"] < bins["high"] and any(bins["counts"])):
        raise ValueError("low must lie below high, and something in between")
    return bins


_Heap = Annotated[_Bins, AfterValidator(_drawable)]


class _Line(TypedDict):
    """And the histograms under their names."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    update: int


@dataclass(frozen=True, slots=True)
class Histogram:
    low: float
    high: float
    counts: tuple[int, ...]
    """In equal bins between low and high, both included."""

    @property
    def edges(self) -> tuple[float, ...]:
        """One more than there are counts."""
        width = (self.high - self.low) / len(self.counts)
        return (*(self.low + width * number for number in range(len(self.counts))), self.high)


@runtime_checkable
class TakesHistograms(Protocol):
    """A sink that has a place for them."""

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None: ...


class HistogramSink:
    name = "histograms"

    def __init__(self, path: Path) -> None:
        self.pointer = str(path)
        self._file = RowFile(path)

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        content = {name: {"low": h.low, "high": h.high, "counts": h.counts} for name, h in values.items()}
        self._file.append(json.dumps({"update": step, **content}, allow_nan=False) + "\n")

    def sync(self) -> None:
        self._file.sync()

    def log(self, step: int, row: Row) -> None:
        """Rows have their own file."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """The summary has its own file."""

    def close(self, exit_code: int) -> None:
        self._file.close()


def read_histograms(run_dir: Path, name: str) -> dict[int, Histogram]:
    """By update, each with a range (low, high, edges) of its own; updates without such steps are left out.

    Args:
        name: `hist/step_entropy_won`, `hist/step_entropy_lost`, and with EMPG `hist/weight` (g),
            `hist/future_clarity` (f), `hist/credit_shift`.
    """
    return {update: values[name] for update, values in read_all_histograms(run_dir) if name in values}


def read_all_histograms(run_dir: Path) -> Iterator[tuple[int, dict[str, Histogram]]]:
    """(update, histograms by name) of each line."""
    path = run_dir / FILE
    for line in read_json_lines(path, _Line) if path.is_file() else ():
        heaps = {name: check_shape(path, value, _Heap) for name, value in line.items() if name != "update"}
        yield (
            line["update"],
            {name: Histogram(heap["low"], heap["high"], tuple(heap["counts"])) for name, heap in heaps.items()},
        )
