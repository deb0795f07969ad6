"""Official ALFWorld games, from a folder or straight from an archive.

Accepted layouts, anywhere below the given folder or inside the archive (.tar, .tar.gz, .tar.xz, .zip):

    <split>/<task type>-<Object>-<MovableReceptacle|None>-<Receptacle|Lamp>-<room>/<trial>/game.tw-pddl

The task type comes from the folder name, so `traj_data.json` is not needed. What ALFWorld itself passes over is skipped
and counted (`collect_game_files` in alfworld/agents/environment/alfred_tw_env.py, alfworld 0.4.2).
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from empg_cli.benchmarks.alfworld.checks import refuse_unplayable
from empg_cli.benchmarks.alfworld.game import CompiledGame
from empg_cli.benchmarks.alfworld.pddl import parse_game
from empg_cli.benchmarks.alfworld.stores import GAME_FILE, REPAIR, FolderStore, GameStore, ZipStore, unpacked
from empg_cli.benchmarks.alfworld.tables import KINDS, SPLITS, interleaved
from empg_cli.errors import DataError
from empg_cli.reading.guard import damaged, json_of, reading
from empg_cli.reading.streams import open_bytes

HOW_TO_GET = (
    "Point benchmark.data_dir (or ALFWORLD_DATA) at the json_2.1.1 folder of an ALFWorld download or at an archive "
    "of it (.tar, .tar.gz, .tar.xz, .zip), or set benchmark.data_dir=null to play generated games."
)
_SOLVABLE = re.compile(rb'"solvable"\s*:\s*true\b')
"""Inside a JSON string the quotes would be escaped, so this is the key."""

ARCHIVES = (".zip", ".tar", ".gz", ".xz")
MOST_BROKEN = 1 / 20
"""Share of the game files that may be broken; above it the data as a whole is."""

Skip = Literal["unsolvable", "unmarked", "movable", "sliced", "broken"]
"""Why a game is not played. As ALFWorld does it: `"solvable": false`, no such key, or a kind of task that it does not
support. `broken`: the file is no game."""


@dataclass(frozen=True, slots=True)
class OfficialGame:
    split: str
    kind: str
    path: str
    digest: str
    """SHA-256 of the file's bytes when the games were listed."""
    store: GameStore = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """split/task folder/trial"""
        return "/".join((self.split, *PurePosixPath(self.path).parts[-3:-1]))

    def compile(self) -> CompiledGame:
        """Raises:
        DataError: the file has changed, is no game, or nobody can win it.
        """
        where = f"{self.store.where}: {self.path}"
        content = self.store.read(self.path)
        if _sha256(content) != self.digest:
            raise DataError(f"{where} has changed since the games were listed: start the run again")
        values = json_of(content, where, REPAIR)
        try:
            with reading("the PDDL problem"):
                game = parse_game(values)
            refuse_unplayable(game)
        except DataError as error:
            raise damaged(where, str(error), REPAIR) from error
        return game


@dataclass(frozen=True)
class OfficialGames:
    where: str
    games: dict[str, tuple[OfficialGame, ...]]
    digest: str
    """Of the paths and contents of the games; the same for a folder and for an archive of it."""
    skipped: dict[str, dict[Skip, int]]
    """Split -> reason -> number of games that are not played; splits without any are left out."""
    first_broken: str | None = None
    """What is wrong with one of those that are broken."""

    def describe_empty(self, split: str) -> str:
        """Why a split has no game of any type, and what is there instead."""
        if passed := self.skipped.get(split):
            reasons = ", ".join(f"{count} {reason}" for reason, count in passed.items())
            return f"{self.where}: no game in the split {split!r} can be played ({reasons}). {REPAIR}"
        there = ", ".join(f"{name} ({len(games):,} games)" for name, games in self.games.items() if games)
        return f"{self.where}: the split {split!r} is missing; there is {there}. {HOW_TO_GET}"


def open_games(location: str) -> OfficialGames:
    """Find the games of all splits, read them once, to the end, and take their digests (a second or two)."""
    path = place_of(Path(location).expanduser())
    with reading(path, f"It may be cut off or damaged. {REPAIR}"):
        if path.is_dir():
            return _collect(FolderStore(path))
        if not path.exists():
            raise DataError(f"benchmark.data_dir: {path} does not exist. {HOW_TO_GET}")
        if path.is_file() and zipfile.is_zipfile(path):
            return _collect(ZipStore(path, str(path)))
        if path.is_file() and _is_tar(path):
            return _collect(unpacked(path))
    raise DataError(f"benchmark.data_dir: {path} is no folder, zip or tar archive, or it is cut off. {HOW_TO_GET}")


def place_of(path: Path) -> Path:
    """The archive in a folder that holds one and no games beside it, as `empg data fetch` leaves it; else the path."""
    if not path.is_dir() or next(FolderStore(path).paths(), None) is not None:
        return path
    archives = [file for file in path.glob("*tw-pddl*") if file.suffix in ARCHIVES and file.is_file()]
    return archives[0] if len(archives) == 1 else path


def _is_tar(path: Path) -> bool:
    with open_bytes(path, by_content=True) as stream:
        try:
            tarfile.open(fileobj=stream, mode="r:").close()
        except tarfile.ReadError:
            return False
    return True


def _collect(store: GameStore) -> OfficialGames:
    found: dict[str, list[OfficialGame]] = {split: [] for split in SPLITS}
    skipped: dict[str, Counter[Skip]] = {split: Counter() for split in SPLITS}
    roots: dict[str, set[str]] = {split: set() for split in SPLITS}
    lines: list[str] = []
    first_broken: str | None = None
    for path in sorted(store.paths()):
        parts = PurePosixPath(path).parts
        content = store.read(path)  # all: in a zip a flipped bit of a name would hide a game, and reading compares it
        if len(parts) < 4 or parts[-4] not in found:
            continue
        split, kind = parts[-4], parts[-3].split("-", 1)[0]
        below = "/".join(parts[-4:])
        reason: Skip | None = "movable" if "movable" in below else "sliced" if "Sliced" in below else None
        if reason is None and kind not in KINDS:
            continue
        roots[split].add("/".join(parts[:-4]))
        if reason is None:
            try:
                reason = _unplayable(content, f"{store.where}: {path}")
            except DataError as error:
                reason, first_broken = "broken", first_broken or str(error)
        if reason is not None:
            skipped[split][reason] += 1
            continue
        digest = _sha256(content)
        found[split].append(OfficialGame(split, kind, path, digest, store))
        lines.append(f"{below} {digest}\n")
    for split, places in roots.items():
        if len(places) > 1:
            raise DataError(
                f"{store.where} holds several data versions: {split} lies in {', '.join(sorted(places))}. "
                "Point benchmark.data_dir at one of them."
            )
    broken = sum(reasons["broken"] for reasons in skipped.values())
    if first_broken and broken > MOST_BROKEN * (broken + len(lines)):
        raise DataError(f"{first_broken}\n  {broken} of {broken + len(lines)} games are broken")
    passed = {split: dict(reasons) for split, reasons in skipped.items() if reasons}
    if not lines:
        only = f" that can be played (skipped: {passed})" if passed else ""
        raise DataError(f"{store.where} holds no <split>/<task>/<trial>/{GAME_FILE}{only}. {HOW_TO_GET}")
    summary = _sha256("".join(sorted(lines)).encode())[:16]
    mixed = {split: _mixed(games) for split, games in found.items()}
    return OfficialGames(store.where, mixed, summary, passed, first_broken)


def _unplayable(content: bytes, where: str) -> Skip | None:
    if _SOLVABLE.search(content):
        return None
    game = json_of(content, where, f"It may be cut off. {REPAIR}")
    if not isinstance(game, dict):
        raise damaged(where, f"holds a JSON {type(game).__name__}, not a game", REPAIR)
    if "solvable" not in game:
        return "unmarked"
    return None if game["solvable"] else "unsolvable"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mixed(games: list[OfficialGame]) -> tuple[OfficialGame, ...]:
    """In the order of their paths within a task type; the types interleaved, so that the first n games are a fair mix
    and not all of the type that comes first in the alphabet."""
    counts = Counter(game.kind for game in games)
    queues = {kind: iter([game for game in games if game.kind == kind]) for kind in counts}
    return tuple(next(queues[kind]) for kind in interleaved({kind: counts[kind] for kind in KINDS if counts[kind]}))
