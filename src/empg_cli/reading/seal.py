"""Folders of ours whose every byte is known again: sizes and checksums in one manifest, which holds its own.

Checked when the folder is opened. Folders above `CHECKED_EACH_TIME` bytes are checked once for each identity of their
files (size, inode, time of the last change of anything), which the user's cache folder remembers: a file that anybody
writes to has another identity, a disk that rots under an unchanged one is noticed up to that size only.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from empg_cli.errors import DataError
from empg_cli.files import cache_root, write_atomically
from empg_cli.reading.guard import damaged, reading
from empg_cli.reading.streams import read_json

CHECKED_EACH_TIME: Final = 2 << 30
"""Bytes; CRC-32 reads about 2 GB a second."""
_FILES, _CHECK = "files", "check"
_PIECE = 1 << 20


def seal(folder: Path, name: str, facts: Mapping[str, Any], *, sized_only: Collection[str] = ()) -> None:
    """Write the manifest of a folder whose files are complete. Empty ones (locks) are left out.

    Args:
        name: of the manifest.
        facts: what it says beside; `unsealed` gives it back.
        sized_only: files whose bytes are checked otherwise, piece by piece as they are used.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        below = path.relative_to(folder).as_posix()
        if below != name:
            crc = None if below in sized_only else crc32(path)
            files[below] = {"bytes": path.stat().st_size, "crc32": crc}
    manifest = {**facts, _FILES: files}
    text = json.dumps({**manifest, _CHECK: _own(manifest)}, indent=1) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def is_sealed(manifest: object) -> bool:
    """Whether this version of the format has made it; either mark is enough, so that no single fault hides both."""
    return isinstance(manifest, dict) and (_FILES in manifest or _CHECK in manifest)


def unsealed(folder: Path, name: str, hint: str) -> dict[str, Any]:
    """The facts of a manifest, after every file has proved to be what was written.

    Args:
        hint: what to do with a damaged folder.

    Raises:
        DataError: a file is missing, of another size, or changed; the manifest included.
    """
    path = folder / name
    manifest = read_json(path, hint)
    with reading(path, hint):
        check, files = manifest.pop(_CHECK), manifest[_FILES]
        if check != _own(manifest):
            raise damaged(path, "not what was written", hint)
        identities = {below: _identity(folder / below, expected["bytes"], hint) for below, expected in files.items()}
        memory = None
        if sum(expected["bytes"] for expected in files.values()) > CHECKED_EACH_TIME:
            memory = _memory_of(folder, check)
            if _remembered(memory) == identities:
                return _facts(manifest)
        for below, expected in files.items():
            if expected["crc32"] is not None and crc32(folder / below) != expected["crc32"]:
                raise damaged(folder / below, "not what was written", hint)
    if memory is not None:
        _remember(memory, identities)
    return _facts(manifest)


def crc32(path: Path) -> int:
    """Of a whole file."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != _FILES}


def _own(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _identity(path: Path, size: int, hint: str) -> list[int]:
    if not path.is_file():
        raise damaged(path, "missing", hint)
    found = path.stat()
    if found.st_size != size:
        raise damaged(path, f"{found.st_size} bytes instead of {size}", hint)
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _memory_of(folder: Path, check: str) -> Path:
    place = hashlib.sha256(f"{folder.resolve()}\n{check}".encode()).hexdigest()[:24]
    return cache_root() / "checked" / f"{place}.json"


def _remembered(path: Path) -> object:
    try:
        return read_json(path)
    except DataError:  # nothing there, or damaged: then all is checked again
        return None


def _remember(path: Path, identities: Mapping[str, list[int]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(identities))
    except OSError:
        return  # no writable cache: checked again next time
