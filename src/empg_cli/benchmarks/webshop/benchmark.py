"""WebShop as a benchmark: tasks in a fixed order, single-use environments, the expert, the fingerprint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from empg_cli.benchmarks.base import Env, Observation, StepResult
from empg_cli.benchmarks.webshop.expert import expert_actions
from empg_cli.benchmarks.webshop.session import Session
from empg_cli.benchmarks.webshop.shop import Shop
from empg_cli.benchmarks.webshop.splits import SplitScheme, split_goals
from empg_cli.benchmarks.webshop.views import View, render
from empg_cli.types import Task

RewardKind = Literal["success", "score"]

_CEILING_SAMPLE = 500
"""Goals of a split, from its start, that the fingerprint's `solvable` is measured on."""


class WebShopEnv:
    """One purchase. Step limits are the rollout's; the shop itself has none."""

    def __init__(self, task: Task, session: Session, view: View, reward: RewardKind, success_reward: float) -> None:
        self.task = task
        self.session = session
        self._view: View = view
        self._reward: RewardKind = reward
        self._success_reward = success_reward

    def reset(self) -> Observation:
        return Observation(render(self.session, self._view), self.session.page.actions)

    def step(self, action: str) -> StepResult:
        """Buying ends the episode; after that, and for any text that is no action here, nothing happens."""
        session = self.session
        valid = session.act(action)
        score = session.score.total if session.score else 0.0
        return StepResult(
            text=render(session, self._view),
            actions=session.page.actions,
            reward=self._reward_of(score) if valid else 0.0,
            done=session.is_done,
            success=score == 1.0,
            score=score,
            valid=valid,
            info=asdict(session.score) if session.score else {},
        )

    def _reward_of(self, score: float) -> float:
        if self._reward == "score":
            return score
        return self._success_reward if score == 1.0 else 0.0


class TaskList(Sequence[Task]):
    """Tasks of a split, made on demand: the full catalogue has millions."""

    def __init__(self, shop: Shop, split: str, goals: Sequence[int]) -> None:
        self._shop = shop
        self._split = split
        self._goals = goals

    def __len__(self) -> int:
        return len(self._goals)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        index = int(self._goals[place])
        goal = self._shop.goals[index]
        return Task(f"{self._shop.goals.kind}/{index}", kind=goal.department, split=self._split, data=index)


class WebShop:
    name = "webshop"

    def __init__(
        self,
        shop: Shop,
        *,
        source: str,
        split_scheme: SplitScheme,
        view: View,
        reward: RewardKind,
        success_reward: float,
    ) -> None:
        self.shop = shop
        self._source = source
        self._scheme: SplitScheme = split_scheme
        self._goals = split_goals(split_scheme, shop.goals.table["product"], shop.buckets)
        self._view: View = view
        self._reward: RewardKind = reward
        self._success_reward = success_reward

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._goals)

    def tasks(self, split: str) -> TaskList:
        if split not in self._goals:
            known = ", ".join(self._goals)
            raise ValueError(f"WebShop with split_scheme={self._scheme} has no split {split!r}; choose one of: {known}")
        return TaskList(self.shop, split, self._goals[split])

    def make_env(self, task: Task) -> WebShopEnv:
        session = Session(self.shop, self.shop.goals[task.data])
        return WebShopEnv(task, session, self._view, self._reward, self._success_reward)

    def expert(self, env: Env, rng: random.Random | None = None) -> Iterator[str]:
        assert isinstance(env, WebShopEnv)
        return expert_actions(env.session, rng)

    def fingerprint(self) -> dict[str, Any]:
        """Also what moves results silently: the noun tagger, and how many goals the right purchase solves at all."""
        counts: Mapping[str, int] = {split: len(goals) for split, goals in self._goals.items()}
        return {
            "source": self._source,
            "products": len(self.shop.products),
            "goals": self.shop.goals.kind,
            "split_scheme": self._scheme,
            "counts": counts,
            "solvable": {split: self._solvable(split) for split in self._goals},
            "nouns": self.shop.noun_tagger,
            "price_seed": self.shop.price_seed,
            "digest": self.shop.digest,
        }

    def _solvable(self, split: str) -> float:
        """Share of the split's first goals that buying the right product with the right options solves."""
        sample = [int(index) for index in self._goals[split][:_CEILING_SAMPLE]]
        return sum(self.shop.best_score(index) == 1.0 for index in sample) / len(sample)
