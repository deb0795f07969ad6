"""Plain and compressed files as bounded streams, lines and texts, read to the checksum at their end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

from empg_cli.reading.guard import damaged, json_of, reading, reason_of

MOST_GROWTH: Final = 200
"""Times that a file may unpack to its own size; text comes to 10, ALFWorld's games to 65, a bomb to 1,000 and more."""
FREE_BYTES: Final = 64 << 20
"""What any file may unpack to."""
LONGEST_LINE: Final = 64 << 20
"""Bytes of a line of text."""
MOST_AT_ONCE: Final = 1 << 30
"""Bytes of a file that is read whole."""
DAMAGED: Final = "It may be cut off or damaged: get it again"
_BUFFER = 1 << 18
_MAGIC: Final[dict[bytes, Callable[[Any], Any]]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def most_unpacked(size: int) -> int:
    """Bytes that a compressed file of this size may become."""
    return FREE_BYTES + MOST_GROWTH * size


class _Unpacked(io.RawIOBase):
    """What a file unpacks to, up to a bound; faults say how far into the file they are."""

    def __init__(self, path: Path, by_content: bool) -> None:
        self._path = path
        with reading(path):
            self._packed: IO[bytes] = path.open("rb")
            kind = _kind(self._packed) if by_content else gzip.open if path.name.endswith(".gz") else None
            self._file: Any = kind(self._packed) if kind else self._packed
            self._most = most_unpacked(path.stat().st_size) if kind else None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._file.read(len(buffer))
            there = self._file.tell()
        except Exception as error:
            raise damaged(f"{self._path}, near byte {self._packed.tell()}", reason_of(error), DAMAGED) from error
        if self._most is not None and there > self._most:
            raise damaged(self._path, f"unpacks to more than {MOST_GROWTH} times its size: no data, but a bomb")
        buffer[: len(piece)] = piece
        return len(piece)

    def seek(self, offset: int, whence: int = 0) -> int:
        with reading(self._path, DAMAGED):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._packed.close()
        super().close()


def _kind(file: IO[bytes]) -> Callable[[Any], Any] | None:
    magic = file.read(2)
    file.seek(0)
    return _MAGIC.get(magic)


def open_bytes(path: Path, *, by_content: bool = False) -> io.BufferedReader:
    """A file's bytes, unpacked where its name ends in `.gz`.

    Args:
        by_content: unpacked where it begins as gzip, bzip2 or xz, whatever its name.

    Raises:
        DataError: it cannot be opened; later, while it is read: it is damaged, or unpacks to a bomb.
    """
    return io.BufferedReader(cast("io.RawIOBase", _Unpacked(path, by_content)), _BUFFER)


def read_text(path: Path, most: int = MOST_AT_ONCE) -> str:
    """A whole UTF-8 file, `.gz` or not. Raises DataError."""
    with open_bytes(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise damaged(path, f"more than {most:,} bytes cannot be read at once")
    with reading(path, DAMAGED):
        return content.decode("utf-8-sig")


def read_json(path: Path, hint: str = "", most: int = MOST_AT_ONCE) -> Any:
    """The value of a whole JSON file, `.gz` or not. Raises DataError."""
    return json_of(read_text(path, most), path, hint)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line with its end) of a UTF-8 file, `.gz` or not. Raises DataError."""
    with open_bytes(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise damaged(f"{path}, line {number}", f"longer than {LONGEST_LINE:,} bytes")
            with reading(f"{path}, line {number}", DAMAGED):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            yield number, text
