"""Rows of a data file as plain dictionaries, whatever the file type; every error names the file and the row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from empg_cli.errors import DataError
from empg_cli.extras import install_command
from empg_cli.reading.guard import damaged, json_of, reading
from empg_cli.reading.streams import DAMAGED, lines, read_json

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
LARGEST_ROW_GROUP: Final = 4 << 30
"""Bytes, unpacked, of the part of a Parquet file that is read at once."""


def is_data_file(path: Path) -> bool:
    return path.is_file() and path.name.removesuffix(".gz").endswith(SUFFIXES)


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) of a JSON Lines, JSON array, CSV, TSV or Parquet file, gzip or not. Raises DataError."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith((".csv", ".tsv")):
        return _table(path, "\t" if name.endswith(".tsv") else ",")
    return _json(path)


def _json(path: Path) -> Iterator[tuple[int, Row]]:
    """An array is read whole, JSON Lines line by line (wiki-18 has 21 million)."""
    numbered = lines(path)
    for number, line in numbered:
        if not line.strip():
            continue
        if line.lstrip().startswith("["):
            array = read_json(path, DAMAGED)
            if not isinstance(array, list):
                raise damaged(path, f"a JSON {type(array).__name__}, not rows")
            for place, row in enumerate(array, start=1):
                yield place, _as_row(path, place, row)
            return
        for place, text in chain([(number, line)], numbered):
            if text.strip():
                yield place, _as_row(path, place, json_of(text, f"{path}, row {place}", DAMAGED))
        return


def _as_row(path: Path, number: int, row: object) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{path}, row {number}: expected an object, got {type(row).__name__}")
    return row


def _table(path: Path, delimiter: str) -> Iterator[tuple[int, Row]]:
    """A line of another length than the first one, and a quote that is never closed, are damage: cells would move or
    vanish."""
    texts = (line.replace("\r\n", "\n") for _, line in lines(path))
    rows = csv.reader(texts, delimiter=delimiter, strict=True)
    number, names = 0, None
    while True:
        with reading(f"{path}, row {number}", DAMAGED):
            cells = next(rows, None)
        if cells is None:
            return
        if not cells:
            continue
        if names is None:
            names = cells
        elif len(cells) != len(names):
            raise damaged(
                f"{path}, row {number}", f"{len(cells)} cells, not {len(names)} as in the first line", DAMAGED
            )
        else:
            yield number, dict(zip(names, cells, strict=True))
        number += 1


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow: {install_command('parquet')}") from None
    with reading(f"{path} is not a readable Parquet file", DAMAGED):
        file = parquet.ParquetFile(path, page_checksum_verification=True)
        facts = file.metadata
        largest = max((facts.row_group(group).total_byte_size for group in range(facts.num_row_groups)), default=0)
        if not 0 <= largest <= LARGEST_ROW_GROUP:
            raise damaged(path, f"a row group of {largest:,} bytes cannot be read at once")
        batches = file.iter_batches(batch_size=1024)
    number = 0
    while True:
        with reading(f"{path}, after row {number} is not a readable Parquet file", DAMAGED):
            rows = [] if (batch := next(batches, None)) is None else batch.to_pylist()
        if batch is None:
            return
        for row in rows:
            number += 1
            yield number, row
