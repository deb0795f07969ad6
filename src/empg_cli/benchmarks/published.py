"""Files that the authors of a benchmark publish: where they are, how they are known again, what is there of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from empg_cli.errors import DataError
from empg_cli.reading.streams import open_bytes

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class PublishedFile:
    name: str
    address: str
    holds: str
    """In a few words."""
    size: int | None = None
    """Bytes; None = not known."""
    sha256: str | None = None
    by_browser: bool = False
    """Google Drive: it wants a click, or a quota is used up."""
    is_needed: bool = True
    """Without it the set is not whole."""


class State(StrEnum):
    RIGHT = "right"
    UNKNOWN = "checksum not known"
    """It is there, and of the right size where that is known."""
    DIFFERENT = "different"
    MISSING = "missing"
    OPTIONAL = "not there (optional)"


@dataclass(frozen=True, slots=True)
class Placed:
    """What lies in a folder where a published file belongs."""

    file: PublishedFile
    state: State
    path: Path | None = None
    size: int | None = None
    """Bytes, unpacked where it is a .gz of the file."""
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """Something that is counted in the data: games of a split, products, questions."""

    what: str
    found: int
    official: int

    @property
    def is_right(self) -> bool:
        return self.found == self.official


@dataclass(frozen=True, slots=True)
class Survey:
    placed: Sequence[Placed]
    counts: Sequence[Count] = ()
    fault: str | None = None
    """Why what is there cannot be counted."""

    @property
    def is_whole(self) -> bool:
        wrong = any(one.state in (State.MISSING, State.DIFFERENT) for one in self.placed)
        return not wrong and self.fault is None and all(count.is_right for count in self.counts)


def survey(folder: Path, files: Sequence[PublishedFile], count: Callable[[], Sequence[Count]] = lambda: ()) -> Survey:
    """What a folder holds of a set. Reads all bytes, and counts where no file that is needed is missing.

    Raises:
        DataError: a file cannot be read.
    """
    placed = [look(file, _path_of(folder, file)) for file in files]
    if any(one.state is State.MISSING for one in placed):
        return Survey(placed)
    try:
        return Survey(placed, count())
    except DataError as error:
        return Survey(placed, fault=str(error))


def _path_of(folder: Path, file: PublishedFile) -> Path | None:
    """By its name; JSON also as a .gz, which is read as well."""
    names = [file.name, *([f"{file.name}.gz"] if file.name.endswith(".json") else [])]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def look(file: PublishedFile, path: Path | None) -> Placed:
    """Compare all bytes at `path` with what was published. Raises DataError."""
    if path is None:
        return Placed(file, State.MISSING if file.is_needed else State.OPTIONAL)
    size, digest = 0, hashlib.sha256()
    for piece in _pieces(path):
        size += len(piece)
        digest.update(piece)
    if file.size not in (None, size) or file.sha256 not in (None, digest.hexdigest()):
        state = State.DIFFERENT
    else:
        state = State.UNKNOWN if file.sha256 is None else State.RIGHT
    return Placed(file, state, path, size, digest.hexdigest())


def _pieces(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as stream:
        while piece := stream.read(_PIECE):
            yield piece
