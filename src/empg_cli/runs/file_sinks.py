"""The sinks that are plain files: metrics.jsonl (always), summary.json (always), metrics.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empg_cli.files import write_atomically
from empg_cli.runs.row_file import RowFile
from empg_cli.runs.rows import Row


class JsonlSink:
    """`metrics.jsonl`, a line per call, on disk as soon as it is logged (see `rows` for the format)."""

    name = "jsonl"

    def __init__(self, path: Path) -> None:
        self.pointer = str(path)
        self._file = RowFile(path)

    def log(self, step: int, row: Row) -> None:
        self._file.append(json.dumps({"update": step, **row}, allow_nan=False) + "\n")

    def sync(self) -> None:
        self._file.sync()

    def summary(self, values: Mapping[str, Any]) -> None:
        """The summary has its own file."""

    def close(self, exit_code: int) -> None:
        self._file.close()


class CsvSink:
    """`metrics.csv`, a line per update, first column `update`; an empty cell is a value that is missing or not finite.

    A metric that appears late (an evaluation, a new task type) adds a column at the right, and the file is written
    anew with the wider header. Rows of the same update are merged into one line.
    """

    name = "csv"

    def __init__(self, path: Path, rows: Mapping[int, Row]) -> None:
        """`rows`: what a resumed run has logged before."""
        self.pointer = str(path)
        self._path = path
        self._rows = {update: dict(row) for update, row in rows.items()}
        self._columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        self._file = self._write_all()

    def log(self, step: int, row: Row) -> None:
        is_new = step not in self._rows
        self._rows.setdefault(step, {}).update(row)
        late_columns = [key for key in row if key not in self._columns]
        if is_new and not late_columns:
            self._file.append(_csv_line(self._cells(step)))
            return
        self._columns += late_columns
        before, self._file = self._file, self._write_all()
        before.close()

    def summary(self, values: Mapping[str, Any]) -> None:
        """The summary has its own file."""

    def close(self, exit_code: int) -> None:
        self._file.close()

    def _cells(self, update: int) -> list[float | None]:
        row = self._rows[update]
        return [update, *(row.get(column) for column in self._columns)]

    def _write_all(self) -> RowFile:
        lines = [_csv_line(["update", *self._columns]), *(_csv_line(self._cells(update)) for update in self._rows)]
        write_atomically(self._path, "".join(lines))
        return RowFile(self._path)


def _csv_line(cells: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


class SummaryFileSink:
    """`summary.json`: the final numbers, `exit_code` among them; absent while a run goes on for the first time."""

    name = "summary"

    def __init__(self, path: Path) -> None:
        self.pointer = str(path)
        self._path = path
        self._values: dict[str, Any] = {}
        path.unlink(missing_ok=True)

    def log(self, step: int, row: Row) -> None:
        """Rows have their own file."""

    def summary(self, values: Mapping[str, Any]) -> None:
        self._values.update(values)
        write_atomically(self._path, json.dumps(self._values, indent=2) + "\n")

    def close(self, exit_code: int) -> None:
        self.summary({"exit_code": exit_code})
