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
MOST_FILES: Final = 500_000
"""Of an archive; ALFWorld's holds 3,827 games."""
MOST_NAME_BYTES: Final = 255
"""Of a folder or file, and of what file systems take."""
MOST_PATH_BYTES: Final = 2048


def unpack(archive: Path, into: Path) -> int:
    """Unpack a zip, whose checksums are compared, or a tar (plain, gzip, bzip2, xz) into the folder.

    Returns:
        The number of files.

    Raises:
        DataError: it is damaged, is no archive, unpacks to a bomb, or a member is a link, points outside, or has a name
            that no file can have, or that another one has.
        OSError: the disk refuses.
    """
    left, number = most_unpacked(archive.stat().st_size), 0
    for name, size, content in _members(archive):
        parts = PurePosixPath(name).parts
        if not parts:
            raise damaged(archive, f"its member {name!r} is a file without a name", DAMAGED)
        if number == MOST_FILES:
            raise damaged(archive, f"holds more than {MOST_FILES:,} files: no data, but a bomb")
        left -= size
        if left < 0:
            raise damaged(archive, f"unpacks to more than {MOST_GROWTH} times its size: no data, but a bomb")
        target = into.joinpath(*parts)
        with naming(target), _new(target, archive, name) as file:
            while piece := _piece(archive, name, content):
                file.write(piece)
        number += 1
    return number


def refuse_unsafe(where: object, name: str, hint: str = DAMAGED) -> None:
    """A member's name that leads out of the folder it is unpacked into, on any system, or that no file can have.

    Raises:
        DataError: it is one.
    """
    path, elsewhere = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or elsewhere.drive or elsewhere.is_absolute() or ".." in (*path.parts, *elsewhere.parts):
        raise DataError(f"{where} is not trustworthy: its member {name!r} points outside. {hint}")
    sizes = [len(part.encode(errors="surrogatepass")) for part in path.parts]
    if "\0" in name or max(sizes, default=0) > MOST_NAME_BYTES or sum(sizes) + len(sizes) > MOST_PATH_BYTES:
        raise damaged(where, f"its member {name[:60]!r} has a name that no file can have", hint)


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


def _new(target: Path, archive: Path, name: str) -> IO[bytes]:
    """Raises DataError: what was unpacked before is in its place, a file of that name (on some systems in other
    letters), or a file where it wants a folder."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise damaged(archive, f"holds {name!r} twice, or as a file and as a folder", DAMAGED) from None


def _piece(archive: Path, name: str, content: IO[bytes]) -> bytes:
    with reading(f"{archive}: {name}", DAMAGED):
        return content.read(_PIECE)
