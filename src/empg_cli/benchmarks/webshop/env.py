"""One purchase as an environment: observations, admissible actions, reward."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.benchmarks.webshop.goals import Goal
from empg_cli.benchmarks.webshop.session import ShopSession
from empg_cli.benchmarks.webshop.shop import Shop
from empg_cli.benchmarks.webshop.views import View, render
from empg_cli.types import Task

RewardKind = Literal["success", "score"]


class WebShopEnv:
    """Single use. A step that means nothing on the page changes nothing but the count of steps."""

    def __init__(
        self,
        task: Task,
        shop: Shop,
        goal: Goal,
        *,
        max_steps: int,
        view: View,
        reward: RewardKind,
        success_reward: float,
    ) -> None:
        self.task = task
        self.session = ShopSession(shop, goal)
        self.max_steps = max_steps
        self.steps = 0
        self._view: View = view
        self._reward: RewardKind = reward
        self._success_reward = success_reward
        self._text: str | None = None

    def reset(self) -> Observation:
        self.session.restart()
        self.steps = 0
        self._text = render(self.session, self._view)
        return Observation(self._text, self.session.page.actions)

    @property
    def is_done(self) -> bool:
        return self.session.is_done or self.steps >= self.max_steps

    @property
    def observation(self) -> Observation:
        """What the agent sees now."""
        if self._text is None:
            raise RuntimeError("observation before reset(): call reset() once to start the episode")
        return Observation(self._text, self.session.page.actions)

    def step(self, action: str) -> StepResult:
        """Buying ends the episode, whatever was bought. After the end nothing changes any more."""
        if self._text is None:
            raise RuntimeError("step() before reset(): call reset() once to start the episode")
        valid = not self.is_done and self.session.act(action)
        bought_now = valid and self.session.is_done
        if not self.is_done or bought_now:
            self.steps += 1
        if valid:
            self._text = render(self.session, self._view)
        purchase = self.session.score
        score = purchase.total if purchase else 0.0
        return StepResult(
            text=self._text,
            actions=self.session.page.actions,
            reward=self._reward_of(score) if bought_now else 0.0,
            done=self.is_done,
            success=score == 1.0,
            score=score,
            valid=valid,
            info=asdict(purchase) if purchase else {},
            at_limit=self.is_done and not self.session.is_done,
        )

    def _reward_of(self, score: float) -> float:
        if self._reward == "score":
            return score
        return self._success_reward if score == 1.0 else 0.0
