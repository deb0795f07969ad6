"""ALFWorld as a benchmark: official games when a data folder or archive is given, else generated ones."""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from empg_cli.benchmarks.alfworld import data, generator
from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import explore
from empg_cli.benchmarks.alfworld.game import CompiledGame
from empg_cli.benchmarks.alfworld.generator import GeneratedGame
from empg_cli.benchmarks.alfworld.tables import KINDS, SPLITS, rules, table_bytes
from empg_cli.benchmarks.base import DataError, Env
from empg_cli.types import Task

log = logging.getLogger(__name__)

COMPILED_GAMES_KEPT = 512
"""A compiled game takes about 0.1 MB; a group plays the same one, so a small cache is enough."""

GameRef = GeneratedGame | data.OfficialGame


class TaskList(Sequence[Task]):
    """The tasks of a split in fixed order; each Task is made when it is asked for."""

    def __init__(self, split: str, games: Sequence[GameRef]) -> None:
        self._split = split
        self._games = games

    def __len__(self) -> int:
        return len(self._games)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> TaskList: ...
    def __getitem__(self, index: int | slice) -> Task | TaskList:
        if isinstance(index, slice):
            return TaskList(self._split, self._games[index])
        game = self._games[index]
        return Task(game.name, game.kind, self._split, game)


class AlfworldBenchmark:
    name = "alfworld"

    def __init__(
        self,
        *,
        data_dir: str | None,
        max_steps: int,
        success_reward: float,
        task_types: Sequence[str],
        train_games: int,
        game_seed: int,
    ) -> None:
        unknown = sorted(set(task_types) - set(KINDS))
        if unknown or not task_types:
            raise ValueError(f"benchmark.task_types must be some of {', '.join(KINDS)}; got {unknown or 'none'}")
        self._max_steps = max_steps
        self._success_reward = success_reward
        self._kinds = frozenset(task_types)
        self._train_games = train_games
        self._game_seed = game_seed
        self._official = data.open_games(data_dir) if data_dir else None
        if self._official and self._official.skipped:
            log.warning("%s: games are skipped: %s", self._official.where, _in_words(self._official.skipped))
        if self._official and self._official.first_broken:
            log.warning("a game that is skipped: %s", self._official.first_broken)
        self._compiled: OrderedDict[GameRef, CompiledGame] = OrderedDict()

    @property
    def splits(self) -> tuple[str, ...]:
        return SPLITS

    def tasks(self, split: str) -> TaskList:
        if split not in SPLITS:
            raise ValueError(f"benchmark.split must be one of {', '.join(SPLITS)}, got {split!r}")
        games = self._games[split]
        if not games:
            if self._official and not self._official.games[split]:
                raise DataError(self._official.describe_empty(split))
            kinds = ", ".join(kind for kind in KINDS if kind in self._kinds)
            where = self._official.where if self._official else f"the {self._train_games} generated games"
            raise DataError(f"{where}: no game of the task types {kinds} in the split {split!r}")
        return TaskList(split, games)

    def make_env(self, task: Task) -> AlfworldEnv:
        game = self._compile(task.data)
        return AlfworldEnv(task, game, max_steps=self._max_steps, success_reward=self._success_reward)

    def expert(self, env: Env, rng: random.Random | None = None) -> Iterator[str]:
        if not isinstance(env, AlfworldEnv):
            raise TypeError(f"the ALFWorld expert plays AlfworldEnv, not {type(env).__name__}")
        return explore(env, rng)

    def fingerprint(self) -> dict[str, Any]:
        games = self._games
        return {
            "name": self.name,
            "source": "official" if self._official else "generated",
            "tasks": {split: len(games[split]) for split in SPLITS},
            "kinds": {split: dict(Counter(game.kind for game in games[split])) for split in SPLITS},
            "digest": self._official.digest if self._official else self._generated_digest(),
            **({"skipped": self._official.skipped} if self._official else {}),
        }

    @cached_property
    def _games(self) -> dict[str, Sequence[GameRef]]:
        if self._official:
            official = self._official.games
            return {split: [game for game in official[split] if game.kind in self._kinds] for split in SPLITS}
        return {split: self._generated(split) for split in SPLITS}

    def _generated(self, split: str) -> Sequence[GameRef]:
        size = self._train_games if split == "train" else sum(rules().split_kinds[split].values())
        games = (GeneratedGame(split, self._game_seed, index) for index in range(size))
        return [game for game in games if game.kind in self._kinds]

    def _generated_digest(self) -> str:
        content = hashlib.sha256(f"{generator.VERSION}/{self._game_seed}/{self._train_games}".encode())
        for table in ("rooms.json", "rules.json"):
            content.update(table_bytes(table))
        return content.hexdigest()[:16]

    def _compile(self, ref: object) -> CompiledGame:
        if not isinstance(ref, GameRef):
            raise TypeError("make_env() takes tasks from the tasks() of an ALFWorld benchmark")
        game = self._compiled.pop(ref, None) or ref.compile()  # an evaluation may ask from another thread meanwhile
        self._compiled[ref] = game
        if len(self._compiled) > COMPILED_GAMES_KEPT:
            self._compiled.popitem(last=False)
        return game


def _in_words(skipped: dict[str, dict[data.Skip, int]]) -> str:
    return "; ".join(
        f"{split}: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        for split, reasons in skipped.items()
    )
