"""A rollout that notes what it is asked for: which tasks are played, and which random numbers each episode is given."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.model.tiny import word_tokenizer
from empg_cli.rollout.engine import Completion
from empg_cli.types import Task

CODEC = CompactCodec(word_tokenizer(vocabulary()))
MALFORMED = "fridge_1"
"""No verb: the environment gets it all the same, and the step pays the penalty."""


class FailingEnv:
    """One step, never solved."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self) -> Observation:
        return Observation("You are in the middle of a room.\n\nYour task is to: put a cd in safe.", ("look",))

    def step(self, action: str) -> StepResult:
        return StepResult("Nothing happens.", (), 0.0, True, False, 0.0, True)


class NotingEngine:
    """Episode i of a rollout says `answers[i % len(answers)]`; notes the first random number that each is given."""

    is_deterministic = True

    def __init__(self, *answers: str) -> None:
        self.answers = answers
        self.drawn: list[list[float]] = []
        """Rollout by rollout."""
        self._rollout: object = None
        self._rows: dict[Hashable, int] = {}

    async def generate(
        self, prompt: Sequence[int], *, episode: Hashable, draws: np.ndarray, **_: Any
    ) -> Completion[int]:
        if self._rollout is not (rollout := asyncio.get_running_loop()):  # each has an event loop of its own
            self._rollout, self._rows = rollout, {}
            self.drawn.append([])
        row = self._rows.setdefault(episode, len(self._rows))
        self.drawn[-1].append(float(draws[0]))
        ids = CODEC.response(self.answers[row % len(self.answers)])
        return Completion(ids, [-0.5] * len(ids), [0.25] * len(ids), ended=True, policy_version=0)

    def close(self, episode: Hashable) -> None: ...


class Games:
    """A benchmark that notes which tasks are played."""

    name = "alfworld"

    def __init__(self) -> None:
        self.played: list[str] = []

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"t{number}", "k", split) for number in range(50)]

    def make_env(self, task: Task) -> FailingEnv:
        self.played.append(task.task_id)
        return FailingEnv(task)


def make_agent() -> Agent[int]:
    return Agent(AlfworldCompact(), CODEC, context="transcript", history=0)
