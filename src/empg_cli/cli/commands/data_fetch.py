"""`empg data fetch BENCH`: the official files, from the address where their authors publish them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from empg_cli.benchmarks.building import built_aside
from empg_cli.benchmarks.published import PublishedFile, State, survey
from empg_cli.cli.commands import data_verify
from empg_cli.cli.commands.data_sources import Name, Place, ShopPlace, Source, by_hand, folder_of, source_of
from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.jobs import COMMAND_LINE
from empg_cli.cli.run_words import own_words
from empg_cli.disk import in_bytes
from empg_cli.errors import UserError
from empg_cli.invocation import command
from empg_cli.observe.console import get_console, is_watched
from empg_cli.observe.terminal import printable, write_line
from empg_cli.owner import working_in
from empg_cli.reading.unpack import unpack
from empg_cli.services.download import Progress, download
from empg_cli.services.errors import ServiceError

LINES = 10
"""Lines for a file, where nobody watches."""


class From(Place):
    mirror: str | None = None
    """Address of a folder that holds the same files under the same names; null = their authors' addresses."""


class GamesFrom(From):
    unpack: bool = False
    """Unpack the archive beside it, for programs that do not read it as it is."""


class ShopFrom(From, ShopPlace):
    pass


WORDS: dict[Name, type[From]] = {"alfworld": GamesFrom, "webshop": ShopFrom, "deepsearch": From}


def run(benchmark: Name, overrides: Sequence[str]) -> None:
    """
    Raises:
        UserError: a file has to be fetched by hand, came as another one, or stands where another one is.
        Stopped: a signal; the same command goes on with what has come.
    """
    example = command("data", "fetch", benchmark, "data_dir=DIR")
    words = own_words("data fetch", overrides, WORDS[benchmark], example=example)
    data_dir = folder_of(benchmark, words)
    if data_dir.is_file():
        folder = shlex.quote(f"data_dir={data_dir.parent}")
        raise UserError(f"data_dir: {data_dir} is a file; give the folder that it is in: {folder}")
    source = source_of(benchmark, data_dir, words)
    with interruptible(command(*COMMAND_LINE[1:])), working_in(data_dir, "fetching"):
        _fetch(benchmark, source, data_dir, words.mirror)
        if isinstance(words, GamesFrom) and words.unpack:
            _unpack(data_dir / source.files[0].name)
    data_verify.report(benchmark, data_dir, source)
    print(printable(source_of(benchmark, data_dir, words).play))


def _fetch(benchmark: Name, source: Source, data_dir: Path, mirror: str | None) -> None:
    placed = {one.file.name: one for one in survey(data_dir, source.files).placed}
    for one in placed.values():
        if one.state is State.DIFFERENT:
            raise UserError(
                f"{one.path} is another file than the official one ({one.size:,} bytes, sha256 {one.sha256}), and is "
                "not written over: move it away, or give another data_dir"
            )
    absent = [file for file in source.files if placed[file.name].path is None]
    for file in source.files:
        if file not in absent:
            write_line(sys.stderr, printable(f"{file.name} is there: {placed[file.name].state}"))
    if mirror is not None:
        absent = [replace(file, address=f"{mirror.rstrip('/')}/{file.name}", by_browser=False) for file in absent]
    for number, file in enumerate(absent):
        if file.by_browser:
            continue
        try:
            with _progress(file) as progress:
                digest = download(
                    file.address, data_dir / file.name, size=file.size, sha256=file.sha256, progress=progress
                )
        except ServiceError as error:
            if not file.is_needed:
                write_line(sys.stderr, printable(f"{file.name} was not fetched, and is optional: {error}"))
                continue
            rest = by_hand(benchmark, source, absent[number:], data_dir)
            raise UserError(f"{file.name} was not fetched: {error}\n  {rest}") from None
        known = "" if file.sha256 else "; checksum not known: size and counts are checked"
        write_line(sys.stderr, printable(f"{file.name}: sha256 {digest}{known}"))
    if clicked := [file for file in absent if file.by_browser and file.is_needed]:
        also = [file for file in absent if file.by_browser and not file.is_needed]
        rest = by_hand(benchmark, source, [*clicked, *also], data_dir)
        raise UserError(f"Google Drive does not serve programs reliably, so this is yours to do: {rest}")


def _unpack(archive: Path) -> None:
    folder = archive.with_suffix("")
    if folder.exists():
        write_line(sys.stderr, printable(f"{folder} is there: nothing unpacked"))
        return
    with built_aside(folder) as aside:
        number = unpack(archive, aside)
    write_line(sys.stderr, printable(f"{number:,} files in {folder}"))


@contextmanager
def _progress(file: PublishedFile) -> Iterator[Progress]:
    """A bar with the time that is left where somebody watches, a line at each tenth elsewhere."""
    if not is_watched():
        yield _lines(file)
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=get_console(), transient=True) as bar:
        task = bar.add_task(file.name, total=file.size)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(file: PublishedFile) -> Callable[[int, int | None], None]:
    said = -1

    def report(done: int, total: int | None) -> None:
        nonlocal said
        step = done * LINES // total if total else 0
        if step != said:
            said = step
            of = f" of {in_bytes(total)}" if total else ""
            write_line(sys.stderr, f"{file.name}: {in_bytes(done)}{of}")

    return report
