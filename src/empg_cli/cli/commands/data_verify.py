"""`empg data verify BENCH`: what of the official data is in a folder, whether it is right, and what is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from empg_cli.benchmarks.published import Placed, State, Survey
from empg_cli.cli.commands.data_sources import Name, Place, ShopPlace, Source, by_hand, folder_of, source_of
from empg_cli.cli.run_words import own_words
from empg_cli.errors import UserError
from empg_cli.invocation import command
from empg_cli.observe.terminal import printable
from empg_cli.reports.tables import NOTHING, Cell, Table, print_table


def run(benchmark: Name, overrides: Sequence[str]) -> None:
    """
    Raises:
        UserError: it is not whole; says what to place where.
    """
    example = command("data", "verify", benchmark, "data_dir=DIR")
    words = own_words("data verify", overrides, ShopPlace if benchmark == "webshop" else Place, example=example)
    data_dir = folder_of(benchmark, words)
    source = source_of(benchmark, data_dir, words)
    if not data_dir.exists():
        fetch = command("data", "fetch", benchmark, f"data_dir={data_dir}", *source.more)
        raise UserError(f"data_dir: {data_dir} does not exist; to make it: {fetch}")
    report(benchmark, data_dir, source)
    print(printable(source.play))


def report(benchmark: Name, data_dir: Path, source: Source) -> None:
    """Print the table. Raises UserError where the set is not whole."""
    found = source.survey()
    print_table(_table(benchmark, data_dir, found), sys.stdout)
    if found.is_whole:
        return
    lines = [f"{benchmark} in {data_dir} is not whole"]
    lines += [f"  {_said(one)}" for one in found.placed if one.state is State.DIFFERENT]
    lines += [f"  {count.found:,} {count.what}, not {count.official:,}" for count in found.counts if not count.is_right]
    lines += [f"  {found.fault}"] if found.fault else []
    if wanted := [one.file for one in found.placed if one.state in (State.MISSING, State.DIFFERENT)]:
        lines.append(f"  {by_hand(benchmark, source, wanted, data_dir)}")
    raise UserError("\n".join(lines))


def _said(one: Placed) -> str:
    official = f"{one.file.size:,} bytes, sha256 {one.file.sha256}" if one.file.size is not None else one.file.sha256
    return f"{one.path} is another file: {one.size:,} bytes, sha256 {one.sha256}; the official one: {official}"


def _table(benchmark: Name, data_dir: Path, found: Survey) -> Table:
    rows = [(one.file.name, _bytes(one.size), _bytes(one.file.size), str(one.state)) for one in found.placed] + [
        (count.what, f"{count.found:,}", f"{count.official:,}", str(State.RIGHT if count.is_right else State.DIFFERENT))
        for count in found.counts
    ]
    notes = [
        f"{one.file.name}: checksum not known: size and counts are checked; sha256 {one.sha256}"
        for one in found.placed
        if one.state is State.UNKNOWN
    ]
    cells = tuple(tuple(Cell(text) for text in row) for row in rows)
    return Table(f"{benchmark} in {data_dir}", ("", "found", "official", "state"), cells, tuple(notes))


def _bytes(size: int | None) -> str:
    return NOTHING if size is None else f"{size:,} bytes"
