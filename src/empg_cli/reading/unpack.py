"""Archives of others unpacked into a folder of ours: nothing outside it is written, and nothing but files."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Final

from empg_cli.errors import DataError
from empg_cli.files import naming
from empg_cli.reading.guard import damaged, reading
from empg_cli.reading.streams import DAMAGED, MOST_GROWTH, most_unpacked, open_bytes

_PIECE: Final = 1 << 20


def unpack(archive: Path, into: Path) -> int:
    """Unpack a zip, whose checksums are compared, or a tar (plain, gzip, bzip2, xz) into the folder.

    Returns:
        The number of files.

    Raises:
        DataError: it is damaged, is no archive, unpacks to a bomb, or a member is a link or points outside.
        OSError: the disk refuses.
    """
    left, number = most_unpacked(archive.stat().st_size), 0
    for name, size, content in _members(archive):
        refuse_unsafe(archive, name)
        left -= size
        if left < 0:
            raise damaged(archive, f"unpacks to more than {MOST_GROWTH} times its size: no data, but a bomb")
        target = into.joinpath(*PurePosixPath(name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with naming(target), target.open("xb") as file:
            while piece := _piece(archive, name, content):
                file.write(piece)
        number += 1
    return number


def refuse_unsafe(where: object, name: str, hint: str = DAMAGED) -> None:
    """A member's name that leads out of the folder it is unpacked into, on any system."""
    path, elsewhere = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or elsewhere.drive or elsewhere.is_absolute() or ".." in (*path.parts, *elsewhere.parts):
        raise DataError(f"{where} is not trustworthy: its member {name!r} points outside. {hint}")


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """(name, bytes, content) of the files in an archive."""
    if zipfile.is_zipfile(archive):
        with reading(archive, DAMAGED), zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                refuse_unsafe(archive, info.filename)
                if not info.is_dir():
                    with packed.open(info) as content:
                        yield info.filename, info.file_size, content
        return
    with (
        reading(archive, DAMAGED),
        open_bytes(archive, by_content=True) as stream,
        tarfile.open(fileobj=stream, mode="r:") as packed_tar,
    ):
        for member in packed_tar:
            refuse_unsafe(archive, member.name)
            if member.isdir():
                continue
            unpacked = packed_tar.extractfile(member) if member.isfile() and member.size >= 0 else None
            if unpacked is None:
                raise DataError(f"{archive}: {member.name} is a link or a device, not a file. {DAMAGED}")
            yield member.name, member.size, unpacked


def _piece(archive: Path, name: str, content: IO[bytes]) -> bytes:
    with reading(f"{archive}: {name}", DAMAGED):
        return content.read(_PIECE)
