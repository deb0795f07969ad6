"""ALFWorld's games as its authors publish them: one archive, which is read as it is.

Address, size and checksum: the asset of release 0.4.2 of github.com/alfworld/alfworld, which `alfworld-download` of
version 0.5 fetches. Counts: the ALFWorld paper (arXiv 2010.03768).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from empg_cli.benchmarks.alfworld import data
from empg_cli.benchmarks.alfworld.stores import FolderStore
from empg_cli.benchmarks.published import Count, PublishedFile, State, Survey, look
from empg_cli.errors import DataError

GAMES: Final = PublishedFile(
    "json_2.1.3_tw-pddl.zip",
    "https://github.com/alfworld/alfworld/releases/download/0.4.2/json_2.1.3_tw-pddl.zip",
    "the games of all splits",
    36_507_267,
    "5df77ea759f2211a4106082839ddbbb790f1ba4e7d097ed732cf453f72aa36cf",
)
OFFICIAL: Final[Mapping[str, int]] = {"train": 3553, "valid_seen": 140, "valid_unseen": 134}


def place_of(data_dir: Path) -> Path:
    """What benchmark.data_dir may name: the official archive in the folder, else what is read there."""
    official = data_dir / GAMES.name
    return official if official.is_file() else data.place_of(data_dir)


def survey(data_dir: Path) -> Survey:
    """Games by split, in the archive, another archive of them, or a folder of games. Raises DataError."""
    place = place_of(data_dir)
    if place.is_dir() and next(FolderStore(place).paths(), None) is None:
        return Survey([look(GAMES, None)])
    placed = []
    if place.is_file():
        found = look(GAMES, place)
        if place.name != GAMES.name and found.state is State.DIFFERENT:  # of another release, or packed by somebody
            found = replace(found, state=State.UNKNOWN, file=replace(GAMES, name=place.name, size=None))
        placed = [found]
    try:
        games = data.open_games(str(place)).games
    except DataError as error:
        return Survey(placed, fault=str(error))
    return Survey(placed, [Count(f"games in {split}", len(games[split]), number) for split, number in OFFICIAL.items()])
