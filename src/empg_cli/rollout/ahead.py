"""Groups of episodes that are played while the main thread learns, in an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from empg_cli.agents.agent import AgentMaker
from empg_cli.agents.codec import P
from empg_cli.benchmarks.base import Benchmark
from empg_cli.rollout.engine import Completion, Engine, Sampling
from empg_cli.rollout.episode import EpisodeRules, play
from empg_cli.rollout.stepping import Stepper
from empg_cli.signals import Interrupted
from empg_cli.types import Task, Trajectory

log = logging.getLogger(__name__)

CLOSE_S = 10.0
"""An environment that blocks longer is left behind; the process does not wait for its thread."""


@dataclass(slots=True, eq=False)
class Group:
    """The attempts at one task. The thread of `Ahead` fills it; others may look at any time."""

    task: Task
    trajectories: list[Trajectory]
    has_begun: bool = False
    finished: int = 0
    """Episodes."""
    error: BaseException | None = None
    """What has ended it; no episode of it goes on."""
    episodes: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return self.finished == len(self.trajectories)

    @property
    def oldest(self) -> int | None:
        """Version of the policy at its oldest step; None before its first."""
        return min((step.policy_version for one in self.trajectories for step in one.steps), default=None)

    def end(self) -> None:
        """In the thread's loop only."""
        for episode in self.episodes:
            episode.cancel()


class Ahead(Generic[P]):
    """Plays the groups that it is given, those given first before others; nothing ever waits for a group as a whole.

    Its methods are for one other thread. An error ends its own group, and stays there to be looked at. When a signal
    asks to end, episodes end at their next turn and groups stay unfinished: whoever waits for them obeys.
    """

    def __init__(
        self,
        engine: Engine[P],
        benchmark: Benchmark,
        make_agent: AgentMaker[P],
        *,
        group_size: int,
        rules: EpisodeRules,
        stream: Sequence[int],
    ) -> None:
        """
        Args:
            engine: is awaited in the thread's loop, whatever other threads ask it or tell it meanwhile.
            stream: integers that name the source of randomness. Each episode draws from its own generator keyed by
                (stream, number of its group, index), so it does not depend on the others.
        """
        self.groups: dict[int, Group] = {}
        """By number: those that were started and not taken."""
        self._engine, self._make_agent = _Apart(engine), make_agent
        self._stepper = Stepper(benchmark, in_order=engine.is_deterministic)
        self._group_size, self._rules, self._stream = group_size, rules, stream
        self._places = asyncio.Semaphore(rules.max_concurrent or sys.maxsize)
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._news = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="ahead", daemon=True)
        self._thread.start()

    def start(self, number: int, task: Task) -> None:
        """Play a group, or what `end_unfinished` has ended of it once more from its beginning."""
        trajectories = [Trajectory(task, number, index) for index in range(self._group_size)]
        group = self.groups[number] = Group(task, trajectories)
        self._loop.call_soon_threadsafe(self._begin, group)

    def take(self, number: int) -> list[Trajectory]:
        """What was played of a group, which is over by that."""
        group = self.groups.pop(number)
        if not group.is_finished:
            self._loop.call_soon_threadsafe(group.end)
        return group.trajectories

    def wait(self, seconds: float) -> None:
        """Until an episode has ended that was not waited for yet, but no longer than so many seconds."""
        self._news.wait(seconds)
        self._news.clear()

    def end_unfinished(self) -> list[int]:
        """End the groups that are not finished; their numbers. Nothing of them is played when this returns."""
        unfinished = {number: group for number, group in self.groups.items() if not group.is_finished}
        asyncio.run_coroutine_threadsafe(self._end(unfinished.values()), self._loop).result()
        for number in unfinished:
            del self.groups[number]
        return sorted(unfinished)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No group begins meanwhile; those that have begun go on."""
        self._loop.call_soon_threadsafe(self._may_begin.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._may_begin.set)

    def close(self) -> None:
        """End all that is played, and the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.warning("an environment blocks for more than %.0f s; its episode is left behind", CLOSE_S)

    def _live(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_over(asyncio.all_tasks(self._loop)))
            self._loop.close()

    def _begin(self, group: Group) -> None:
        group.episodes = [self._loop.create_task(self._play(group, one)) for one in group.trajectories]

    async def _end(self, groups: Collection[Group]) -> None:
        await _over([episode for group in groups for episode in group.episodes])

    async def _play(self, group: Group, trajectory: Trajectory) -> None:
        key = np.random.SeedSequence([*self._stream, trajectory.group, trajectory.index])
        rng = np.random.Generator(np.random.Philox(key))
        try:
            async with self._places:
                if not group.has_begun:
                    await self._may_begin.wait()
                    group.has_begun = True
                with self._stepper.episode():
                    await play(trajectory, self._make_agent(), self._engine, self._stepper, self._rules, rng)
            group.finished += 1
        except (asyncio.CancelledError, Interrupted):
            pass
        except BaseException as error:  # of any kind: let out, SystemExit would end the loop and be seen by nobody
            group.error = group.error or error
            group.end()
        self._news.set()


class _Apart(Generic[P]):
    """An engine that is given other names of episodes: an evaluation, whose groups have their own numbers, may be
    played meanwhile."""

    def __init__(self, engine: Engine[P]) -> None:
        self._engine = engine
        self.is_deterministic = engine.is_deterministic

    async def generate(
        self, prompt: Sequence[P], *, episode: Hashable, draws: np.ndarray, sampling: Sampling
    ) -> Completion[P]:
        return await self._engine.generate(prompt, episode=("ahead", episode), draws=draws, sampling=sampling)

    def close(self, episode: Hashable) -> None:
        self._engine.close(("ahead", episode))

    def revive(self) -> None:
        self._engine.revive()


async def _over(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
