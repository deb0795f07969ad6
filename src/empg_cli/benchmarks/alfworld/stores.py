"""Where the bytes of official games are: a folder, a zip, or a tar that is checked to its end and copied into a zip."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from empg_cli.benchmarks.alfworld.tables import SPLITS
from empg_cli.errors import DataError
from empg_cli.files import cache_root, replacing
from empg_cli.reading.guard import damaged, reading
from empg_cli.reading.streams import MOST_GROWTH, most_unpacked, open_bytes
from empg_cli.reading.unpack import refuse_unsafe

GAME_FILE = "game.tw-pddl"
REPAIR = "Download the data again, or set benchmark.data_dir=null to play generated games."
MOST_GAME = 4 << 20
"""Bytes of a game; the largest official one has 138 kB."""
_CACHE_FORMAT = 2
_DIGEST_CHARS = 24
_PIECE = 1 << 20


class GameStore(Protocol):
    where: str

    def paths(self) -> Iterator[str]:
        """The path, with forward slashes, of every game file."""
        ...

    def read(self, path: str) -> bytes:
        """The whole file. Raises DataError, also for bytes that are not those that were archived."""
        ...


class FolderStore:
    """Follows links to folders. A folder is read once in each split, however many links lead to it or back up."""

    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root.absolute()
        # The root's own name counts, so that a single split's folder, or a link to it, can be given.
        self._prefix = self._root.name if self._root.name in SPLITS else self._root.resolve().name

    def paths(self) -> Iterator[str]:
        """Real folders come first: what a link leads back to is known by then."""
        seen: set[tuple[str | None, int, int]] = set()
        folders, links = deque([PurePosixPath(self._prefix)]), deque[PurePosixPath]()
        while folders or links:
            below = (folders or links).popleft()
            folder = self._root.joinpath(*below.parts[1:])
            status = folder.stat()
            here = (_split_of(below), status.st_dev, status.st_ino)
            if here in seen:
                continue
            seen.add(here)
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                raise DataError(f"{folder} cannot be listed ({error.strerror}): its games would be left out") from error
            for entry in entries:
                if Path(entry).is_dir():
                    (links if entry.is_symlink() else folders).append(below / entry.name)
                elif entry.name == GAME_FILE:
                    yield str(below / GAME_FILE)

    def read(self, path: str) -> bytes:
        file = self._root.joinpath(*PurePosixPath(path).parts[1:])
        with reading(f"{self.where}: {path}", REPAIR):
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
                raise damaged(f"{self.where}: {path}", "no file", REPAIR)
            refuse_large(f"{self.where}: {path}", status.st_size)
            return file.read_bytes()


def _split_of(path: PurePosixPath) -> str | None:
    """The split that what lies in a folder belongs to."""
    return next((part for part in reversed(path.parts) if part in SPLITS), None)


class ZipStore:
    """Random access to a zip on disk or in memory. Pickled and forked processes open it anew."""

    def __init__(self, source: Path | bytes, where: str) -> None:
        self.where = where
        self._source = source
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def _archive(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            source = io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source
            self._opened = os.getpid(), zipfile.ZipFile(source)
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def paths(self) -> Iterator[str]:
        members = self._archive().infolist()
        size = len(self._source) if isinstance(self._source, bytes) else self._source.stat().st_size
        if sum(info.file_size for info in members) > most_unpacked(size):
            raise damaged(self.where, f"unpacks to more than {MOST_GROWTH} times its size: no data, but a bomb", REPAIR)
        for info in members:
            refuse_unsafe(self.where, info.filename, REPAIR)
            if info.filename.endswith("/" + GAME_FILE):
                yield info.filename
            else:  # a flipped bit in a name would hide a game; reading compares the name's two copies
                with self._archive().open(info) as member:
                    _read_out(member.read)

    def read(self, path: str) -> bytes:
        with reading(f"{self.where}: {path}", REPAIR):
            refuse_large(f"{self.where}: {path}", self._archive().getinfo(path).file_size)
            return self._archive().read(path)  # checks the CRC


def unpacked(tar: Path) -> ZipStore:
    """A tar has no random access, so its games are copied once into a zip in the user's cache folder.

    The name of the zip holds the digests of the tar and of the zip itself: one that was damaged since is made again.
    """
    folder = cache_root()
    name = f"alfworld-{_CACHE_FORMAT}-{_digest(tar)}-"
    for cached in folder.glob(f"{name}*.zip"):
        with contextlib.suppress(OSError):  # of another user, say
            if cached.name == f"{name}{_digest(cached)}.zip":
                return ZipStore(cached, str(tar))
            cached.unlink(missing_ok=True)
    memory = io.BytesIO()  # 20 MB
    _copy_games(tar, memory)
    games = memory.getvalue()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{name}{_digest_of(games)}.zip"
        with replacing(kept) as temporary:
            temporary.write_bytes(games)
    except OSError:  # no writable cache, or a full one: they stay in memory
        return ZipStore(games, str(tar))
    return ZipStore(kept, str(tar))


def _copy_games(tar: Path, target: IO[bytes]) -> None:
    with (
        open_bytes(tar, by_content=True) as stream,
        tarfile.open(fileobj=stream, mode="r:") as source,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
    ):
        for member in source:
            refuse_unsafe(str(tar), member.name, REPAIR)
            if member.size < 0:  # tarfile would go back and read it for ever
                raise damaged(f"{tar}: {member.name}", "less than no bytes", REPAIR)
            if member.name.endswith("/" + GAME_FILE):
                refuse_large(f"{tar}: {member.name}", member.size)
                game = source.extractfile(member) if member.isfile() else None
                if game is None:
                    raise DataError(f"{tar}: {member.name} is a link, not a file. {REPAIR}")
                out.writestr(zipfile.ZipInfo(member.name), game.read(), zipfile.ZIP_DEFLATED)
        # tarfile takes an archive that stops between two members for a whole one; a whole one ends in zeros.
        stream.seek(source.offset)
        if stream.read(512) != bytes(512):
            raise tarfile.ReadError("no end-of-archive mark, it may be cut off")
        _read_out(stream.read)  # tarfile stops here, and the checksum of the compressed stream stands at its end


def _read_out(read: Callable[[int], bytes]) -> None:
    while read(_PIECE):
        pass


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGEST_CHARS]


def _digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_CHARS]


def refuse_large(where: str, size: int) -> None:
    """Before it is read."""
    if size > MOST_GAME:
        raise damaged(where, f"{size:,} bytes are no game", REPAIR)
