"""Episodes that go on over updates, with an engine whose answers a test holds back and lets go."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from empg_cli.agents.alfworld_compact import AlfworldCompact
from empg_cli.benchmarks.base import Observation, StepResult, UnscoredError
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.ahead_source import AheadSource
from empg_cli.rollout.engine import Completion
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Progress, Task, Trajectory
from tests.support.noting import CODEC, make_agent
from tests.support.one_step import BREAK, SOLVE
from tests.support.tiny import tiny_config

GO_ON = "go to fridge 1"
"""An action after which there is another turn; any other is the last."""
VLLM = ("rollout.engine=vllm", "trainer.old_logprobs=recompute")
LIMIT_S = 20.0
Turn = tuple[int, int, int]
"""Group, index and turn, from 0."""


class SlowEngine:
    """`says` what is answered in a turn, after `takes` seconds; turns of `held` wait until they are let go. An answer
    has the version of the policy when it was asked for."""

    is_deterministic = False

    def __init__(
        self, says: Callable[[Turn], str] = lambda turn: SOLVE, takes: Callable[[Turn], float] = lambda turn: 0.0
    ) -> None:
        self._says, self._takes = says, takes
        self.policy_version = 0
        self.held: set[Turn] = set()
        self.draws: dict[tuple[int, int], list[float]] = {}
        """The first number of each turn, by episode; what is played again stands there again."""
        self.begun: list[int] = []
        """Groups, in the order of their first turns."""
        self.open: set[Hashable] = set()
        """Names of episodes that are not closed."""
        self.waiting: dict[Hashable, Turn] = {}
        """Turns that are held, or were a moment ago, by the name of their episode."""
        self.most_open = 0
        self.revived = 0
        self._turns: Counter[Hashable] = Counter()

    async def generate(
        self, prompt: Sequence[int], *, episode: Hashable, draws: np.ndarray, **_: Any
    ) -> Completion[int]:
        version = self.policy_version
        _, (group, index) = episode  # type: ignore[misc]
        turn = (group, index, self._turns[episode])
        self._turns[episode] += 1
        self.open.add(episode)
        self.most_open = max(self.most_open, len(self.open))
        self.draws.setdefault((group, index), []).append(float(draws[0]))
        if group not in self.begun:
            self.begun.append(group)
        if delay := self._takes(turn):
            await asyncio.sleep(delay)
        while turn in self.held:
            self.waiting[episode] = turn
            await asyncio.sleep(0.001)
        self.waiting.pop(episode, None)
        ids = CODEC.response(AlfworldCompact().phrase(self._says(turn)))
        return Completion(ids, [-0.5] * len(ids), [0.25] * len(ids), ended=True, policy_version=version)

    def close(self, episode: Hashable) -> None:
        self.open.discard(episode)
        self.waiting.pop(episode, None)
        del self._turns[episode]

    def publish(self, version: int) -> None:
        self.policy_version = version

    def rest(self) -> None: ...

    def revive(self) -> None:
        self.revived += 1


class WalkEnv:
    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self) -> Observation:
        return Observation("You are in the middle of a room.\n\nYour task is to: put a cd in safe.", (SOLVE,))

    def step(self, action: str) -> StepResult:
        if action == BREAK:
            raise UnscoredError("no verdict")
        solved = action == SOLVE
        return StepResult("Nothing happens.", (), float(solved), action != GO_ON, solved, float(solved), True)


class Walks:
    name = "alfworld"

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"t{number}", "k", split) for number in range(50)]

    def make_env(self, task: Task) -> WalkEnv:
        return WalkEnv(task)


class Run:
    """What a loop does with a source, but for the learning."""

    def __init__(self, source: AheadSource, engine: SlowEngine, state: TrainState) -> None:
        self.source, self.engine, self.state = source, engine, state
        self.metrics: dict[str, float] = {}
        self._end, self._wait = time.monotonic() + LIMIT_S, source._ahead.wait
        source._ahead.wait = self._wait_no_longer  # type: ignore[method-assign]

    def _wait_no_longer(self, seconds: float) -> None:
        assert time.monotonic() < self._end, "the update waits for ever"
        self._wait(seconds)

    def update(self, *, settles: bool = True) -> list[int]:
        """The groups that train."""
        trained = [one.group for one in self.play(settles=settles)]
        return list(dict.fromkeys(trained))

    def play(self, *, settles: bool = True) -> list[Trajectory]:
        """settles: the update looks when all that can go on has ended, so that nothing depends on a clock."""
        after, self._end = replace(self.state), time.monotonic() + LIMIT_S
        if settles:
            self.settle()
        trajectories, self.metrics = self.source.next(after)
        after.update += 1
        self.state.become(after)
        self.engine.publish(after.update)
        return trajectories

    def settle(self) -> None:
        """Begin what the next update begins, until each episode is over or held."""
        self.source._fill_places(self.state)
        groups = self.source._ahead.groups
        until(
            lambda: all(
                len(group.episodes) == 2
                and all(
                    task.done() or self.engine.waiting.get(("ahead", (number, index))) in self.engine.held
                    for index, task in enumerate(group.episodes)
                )
                for number, group in groups.items()
            )
        )

    def until_finished(self, *groups: int) -> None:
        until(lambda: all(self.source._ahead.groups[number].is_finished for number in groups))


@contextmanager
def ahead(
    engine: SlowEngine,
    *words: str,
    benchmark: Any = None,
    state: TrainState | None = None,
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
) -> Iterator[Run]:
    """Updates of two groups of two, and of groups that may begin one update before."""
    cfg = tiny_config(
        "algo=grpo",
        "algo.group_size=2",
        "trainer.tasks_per_update=2",
        "trainer.updates=100",
        *VLLM,
        "rollout.max_staleness=1",
        *words,
    )
    engine.publish((state or TrainState()).update)
    with closing(AheadSource(cfg, engine, benchmark or Walks(), make_agent, progress, ranks)) as source:
        yield Run(source, engine, state or TrainState())


def until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.001)


def turns(group: int, *, turn: int = 0) -> set[Turn]:
    """Of both members."""
    return {(group, 0, turn), (group, 1, turn)}
