"""WebShop as a benchmark: tasks in a fixed order, single-use environments, the expert, the fingerprint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, overload

from empg_cli.benchmarks.base import Env
from empg_cli.benchmarks.webshop.env import RewardKind, WebShopEnv
from empg_cli.benchmarks.webshop.expert import expert_actions
from empg_cli.benchmarks.webshop.goals import GoalKind
from empg_cli.benchmarks.webshop.load import open_shop
from empg_cli.benchmarks.webshop.nouns import NounSource
from empg_cli.benchmarks.webshop.official import OfficialSet
from empg_cli.benchmarks.webshop.shop import Shop
from empg_cli.benchmarks.webshop.shopper import shopper_actions
from empg_cli.benchmarks.webshop.splits import GoalIndices, SplitScheme, split_goals
from empg_cli.benchmarks.webshop.views import View
from empg_cli.types import Task

ExpertKind = Literal["shopper", "goal"]

_SOLVABLE_SAMPLE = 500
"""Goals of a split, from its start, that the fingerprint's `solvable` is measured on."""


class TaskList(Sequence[Task]):
    """The tasks of a split in fixed order; each Task is made when it is asked for: the full set has millions."""

    def __init__(self, shop: Shop, split: str, goals: GoalIndices) -> None:
        self._shop = shop
        self._split = split
        self._goals = goals

    def __len__(self) -> int:
        return len(self._goals)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> TaskList: ...
    def __getitem__(self, place: int | slice) -> Task | TaskList:
        if isinstance(place, slice):
            return TaskList(self._shop, self._split, self._goals[place])
        index = int(self._goals[place])
        goal = self._shop.goals[index]
        return Task(f"{self._shop.goals.kind}/{index}", goal.department, self._split, index)


class WebShopBenchmark:
    name = "webshop"

    def __init__(
        self,
        *,
        data_dir: str | None,
        official_set: OfficialSet,
        num_products: int,
        shop_seed: int,
        price_seed: int,
        goals: GoalKind,
        split_scheme: SplitScheme,
        nouns: NounSource,
        observation: View,
        show_attributes: bool,
        max_steps: int,
        reward: RewardKind,
        success_reward: float,
        expert: ExpertKind,
    ) -> None:
        """The keys are those of conf/benchmark/webshop.yaml. Raises DataError for data that is missing or broken."""
        self.shop, self._source = open_shop(
            data_dir,
            official_set=official_set,
            num_products=num_products,
            shop_seed=shop_seed,
            price_seed=price_seed,
            goals=goals,
            nouns=nouns,
            show_attributes=show_attributes,
        )
        self._scheme: SplitScheme = split_scheme
        self._goals = split_goals(split_scheme, self.shop.goals.table["product"], self.shop.buckets)
        self._max_steps = max_steps
        self._view: View = observation
        self._reward: RewardKind = reward
        self._success_reward = success_reward
        self._expert: ExpertKind = expert

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._goals)

    def tasks(self, split: str) -> TaskList:
        if split not in self._goals:
            known = ", ".join(self._goals)
            raise ValueError(
                f"benchmark.split must be one of {known} with benchmark.split_scheme={self._scheme}, got {split!r}"
            )
        return TaskList(self.shop, split, self._goals[split])

    def make_env(self, task: Task) -> WebShopEnv:
        if not isinstance(task.data, int):
            raise TypeError("make_env() takes tasks from the tasks() of a WebShop benchmark")
        return WebShopEnv(
            task,
            self.shop,
            self.shop.goals[task.data],
            max_steps=self._max_steps,
            view=self._view,
            reward=self._reward,
            success_reward=self._success_reward,
        )

    def expert(self, env: Env, rng: random.Random | None = None) -> Iterator[str]:
        if not isinstance(env, WebShopEnv):
            raise TypeError(f"the WebShop expert plays WebShopEnv, not {type(env).__name__}")
        return shopper_actions(env) if self._expert == "shopper" else expert_actions(env.session, rng)

    def fingerprint(self) -> dict[str, Any]:
        """Also what moves results silently: the noun tagger, and how many goals the right purchase solves at all."""
        return {
            "name": self.name,
            "source": self._source,
            "products": len(self.shop.products),
            "goals": self.shop.goals.kind,
            "split_scheme": self._scheme,
            "tasks": {split: len(goals) for split, goals in self._goals.items()},
            "solvable": self._solvable,
            "nouns": self.shop.noun_tagger,
            "price_seed": self.shop.price_seed,
            "digest": self.shop.digest[:16],
        }

    @cached_property
    def _solvable(self) -> dict[str, float]:
        """Share of each split's first goals that buying the right product with the right options solves."""
        samples = {split: [int(index) for index in goals[:_SOLVABLE_SAMPLE]] for split, goals in self._goals.items()}
        return {
            split: sum(self.shop.best_score(index) == 1.0 for index in sample) / len(sample)
            for split, sample in samples.items()
        }
