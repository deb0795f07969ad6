"""Official ALFWorld games, from a folder or straight from an archive.

Accepted layouts, anywhere below the given folder or inside the archive (.tar, .tar.gz, .tar.xz, .zip):

    <split>/<task type>-<Object>-<MovableReceptacle|None>-<Receptacle|Lamp>-<room>/<trial>/game.tw-pddl

The task type comes from the folder name, so `traj_data.json` is not needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from empg_cli.benchmarks.alfworld.game import CompiledGame
from empg_cli.benchmarks.alfworld.pddl import parse_game
from empg_cli.benchmarks.alfworld.tables import KINDS, SPLITS, interleaved
from empg_cli.benchmarks.base import DataError

GAME_FILE = "game.tw-pddl"
HOW_TO_GET = (
    "Point benchmark.data_dir (or ALFWORLD_DATA) at the json_2.1.1 folder of an ALFWorld download or at an archive "
    "of it (.tar, .tar.gz, .tar.xz, .zip), or set benchmark.data_dir=null to play generated games."
)
_REPAIR = "Download the data again, or set benchmark.data_dir=null to play generated games."
_CACHE_FORMAT = 1
_BROKEN_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError)


class GameStore(Protocol):
    """Where the bytes of the games are."""

    where: str

    def members(self) -> Iterator[tuple[str, int]]:
        """(path with forward slashes, size in bytes) of every game file."""
        ...

    def read(self, path: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class OfficialGame:
    split: str
    kind: str
    path: str
    store: GameStore = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """split/task folder/trial"""
        return "/".join((self.split, *PurePosixPath(self.path).parts[-3:-1]))

    def compile(self) -> CompiledGame:
        where = f"{self.store.where}: {self.path}"
        try:
            game = json.loads(self.store.read(self.path))
        except ValueError as error:
            raise DataError(f"{where} is not valid JSON, it may be cut off ({error}). {_REPAIR}") from error
        except _BROKEN_ARCHIVE as error:
            raise DataError(f"{where} cannot be read ({error}). {_REPAIR}") from error
        if not isinstance(game, dict):
            raise DataError(f"{where} holds a JSON {type(game).__name__}, not a game. {_REPAIR}")
        if game.get("solvable") is not True:
            raise DataError(
                f"{where} is not marked solvable ({game.get('solvable')!r}): it is a source file or from another "
                f"data version. {_REPAIR}"
            )
        try:
            return parse_game(game)
        except DataError as error:
            raise DataError(f"{where}: {error}. {_REPAIR}") from error


@dataclass(frozen=True)
class OfficialGames:
    where: str
    games: dict[str, tuple[OfficialGame, ...]]
    digest: str
    """Of the names and sizes of the games; the same for a folder and for an archive of it."""


def open_games(location: str) -> OfficialGames:
    """Find the games of all splits. Their content is read when a game is played, or now for a tar archive."""
    path = Path(location).expanduser()
    if path.is_dir():
        return _collect(_Folder(path))
    if not path.exists():
        raise DataError(f"benchmark.data_dir: {path} does not exist. {HOW_TO_GET}")
    try:
        if zipfile.is_zipfile(path):
            return _collect(_Zip(path, str(path)))
        if tarfile.is_tarfile(path):
            return _collect(_unpacked(path))
    except _BROKEN_ARCHIVE as error:
        raise DataError(f"{path} cannot be read, it may be cut off ({error}). {_REPAIR}") from error
    raise DataError(f"benchmark.data_dir: {path} is no folder, zip or tar archive, or it is cut off. {HOW_TO_GET}")


def _collect(store: GameStore) -> OfficialGames:
    found: dict[str, list[OfficialGame]] = {split: [] for split in SPLITS}
    roots: dict[str, set[str]] = {split: set() for split in SPLITS}
    lines = []
    for path, size in sorted(store.members()):
        parts = PurePosixPath(path).parts
        position = next((i for i, part in enumerate(parts[:-2]) if part in found), None)
        if position is None:
            continue
        kind = parts[position + 1].split("-", 1)[0]
        if kind in KINDS:
            split = parts[position]
            found[split].append(OfficialGame(split, kind, path, store))
            roots[split].add("/".join(parts[:position]))
            lines.append(f"{'/'.join(parts[position:])} {size}\n")
    for split, places in roots.items():
        if len(places) > 1:
            raise DataError(
                f"{store.where} holds several data versions: {split} lies in {', '.join(sorted(places))}. "
                "Point benchmark.data_dir at one of them."
            )
    if not lines:
        raise DataError(f"{store.where} holds no <split>/<task>/<trial>/{GAME_FILE}. {HOW_TO_GET}")
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]
    return OfficialGames(store.where, {split: _mixed(games) for split, games in found.items()}, digest)


def _mixed(games: list[OfficialGame]) -> tuple[OfficialGame, ...]:
    """In the order of their paths within a task type; the types interleaved, so that the first n games are a fair mix
    and not all of the type that comes first in the alphabet."""
    counts = Counter(game.kind for game in games)
    queues = {kind: iter([game for game in games if game.kind == kind]) for kind in counts}
    return tuple(next(queues[kind]) for kind in interleaved({kind: counts[kind] for kind in KINDS if counts[kind]}))


class _Folder:
    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root

    def members(self) -> Iterator[tuple[str, int]]:
        for folder, _, files in os.walk(self._root):
            if GAME_FILE in files:
                path = Path(folder, GAME_FILE)
                # The root's own name counts, so that a single split folder can be given.
                yield path.relative_to(self._root.parent).as_posix(), path.stat().st_size

    def read(self, path: str) -> bytes:
        return (self._root.parent / path).read_bytes()


class _Zip:
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

    def members(self) -> Iterator[tuple[str, int]]:
        for info in self._archive().infolist():
            _refuse_unsafe(self.where, info.filename)
            if info.filename.endswith("/" + GAME_FILE):
                yield info.filename, info.file_size

    def read(self, path: str) -> bytes:
        return self._archive().read(path)


def _unpacked(tar: Path) -> _Zip:
    """A tar has no random access, so its games are copied once into a zip in the user's cache folder."""
    with tar.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:24]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cached = Path(base, "empg", f"alfworld-{_CACHE_FORMAT}-{digest}.zip")
    if cached.is_file() and zipfile.is_zipfile(cached):
        return _Zip(cached, str(tar))
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cached.parent, suffix=".part")
    except OSError:
        memory = io.BytesIO()  # no writable cache: keep the 20 MB in memory
        _copy_games(tar, memory)
        return _Zip(memory.getvalue(), str(tar))
    try:
        with os.fdopen(handle, "wb") as part:
            _copy_games(tar, part)
        Path(name).replace(cached)
    except BaseException:
        Path(name).unlink()
        raise
    return _Zip(cached, str(tar))


def _copy_games(tar: Path, target: IO[bytes]) -> None:
    with tarfile.open(tar) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for member in source:
            _refuse_unsafe(str(tar), member.name)
            if member.name.endswith("/" + GAME_FILE):
                stream = source.extractfile(member) if member.isfile() else None
                if stream is None:
                    raise DataError(f"{tar}: {member.name} is a link, not a file. {_REPAIR}")
                out.writestr(zipfile.ZipInfo(member.name), stream.read(), zipfile.ZIP_DEFLATED)
        # tarfile takes an archive that stops between two members for a whole one; a whole one ends in zeros.
        assert source.fileobj is not None
        source.fileobj.seek(source.offset)
        if source.fileobj.read(512) != bytes(512):
            raise tarfile.ReadError("no end-of-archive mark")


def _refuse_unsafe(where: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{where} is not trustworthy: its member {name!r} points outside. {_REPAIR}")
