"""The trajectories of one update, of groups that are played while the policy learns (`rollout.max_staleness`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace

from empg_cli.agents.agent import AgentMaker
from empg_cli.benchmarks.base import Benchmark, tallies_of
from empg_cli.config.schema import TrainConfig
from empg_cli.pulse import looking
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.ahead import Ahead
from empg_cli.rollout.collect import MOST_REVIVALS, NO_TASK, refuse_if_nothing_fits, shared
from empg_cli.rollout.engine import EngineLost, LearnersEngine
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.freshness import Look, describe_staleness, judge
from empg_cli.rollout.masking import count_masked
from empg_cli.rollout.source import Source, describe_played, informative_groups
from empg_cli.rollout.tasks import training_tasks
from empg_cli.runs.checkpoint import TrainState
from empg_cli.services.errors import ServerDown
from empg_cli.services.tally import FailedCalls
from empg_cli.types import Progress, Task, Trajectory

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
"""Between two looks of all ranks at what is finished, and at signals; one rank alone looks at each end as well."""
_STREAM = 6
"""Keeps this use of the seed apart from others."""


class AheadSource:
    """Where the trajectories that train come from, while episodes go on over updates.

    A group has the number of its task in the stream of the run. There are (1 + max_staleness) * tasks_per_update
    places: a group has one from when it is started until it trains or is dropped. They are filled when an update asks
    for its episodes, never after it, so nothing that is played in turn is too old. Of several ranks, rank r plays the
    groups whose number is r modulo how many there are. What becomes of a group all decide alike, at common points.

    This class alone promises that nothing older than max_staleness trains, and that each group trains or is dropped
    once, as a whole.

    A run that stops throws away what has not trained. The `next_task` of a checkpoint is behind all that was started:
    who goes on from it plays other tasks, and those come again with the next round of the stream.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        engine: LearnersEngine,
        benchmark: Benchmark,
        make_agent: AgentMaker[int],
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """progress: told about how many episodes have ended, of those that an update needs."""
        self._cfg, self._engine, self._benchmark = cfg, engine, benchmark
        self._progress, self._ranks = progress, ranks
        self._tasks = benchmark.tasks("train")
        self._rules = episode_rules(cfg.rollout, cfg.benchmark, temperature=cfg.rollout.temperature)
        self._calls = self._calls_from_now()
        self._started: dict[int, Task] = {}
        """By number: the groups that have a place, of all ranks."""
        self._next_number = 0
        self._times_lost = 0
        size, stream = cfg.algo.group_size, (_STREAM, cfg.seed)
        self._ahead = Ahead(engine, benchmark, make_agent, group_size=size, rules=self._rules, stream=stream)

    def close(self) -> None:
        """End what is played; it is thrown away."""
        self._ahead.close()

    def paused(self) -> AbstractContextManager[None]:
        """While somebody else plays: no group begins, those that have begun go on."""
        return self._ahead.paused()

    def next(self, state: TrainState) -> tuple[list[Trajectory], dict[str, float]]:
        """Wait until `tasks_per_update` groups are finished, and take those with the lowest numbers; counts in `state`
        what was taken and what was dropped, and sets its `next_task`.

        A group with a step from before the last `max_staleness` updates is dropped, finished or not. With
        `drop_uniform_groups` so are groups whose members all got the same task reward, until the update is full or
        1 + `max_resamples` times as many groups as it needs were looked at. An update that is not full by then is made
        from what there is, or, if that is nothing, from the last groups as they came.

        Returns:
            The episodes of the groups that train, unscored ones too, and what to log about them and the uniform ones.

        Raises:
            Interrupted: a signal has asked to end.
            NothingFits: every first prompt was too long for the context.
            ServerDown, EnvironmentsDown: too much of it stayed without an answer, or all without a verdict; or the
                engine was lost again and again.
        """
        wanted, sampling = self._cfg.trainer.tasks_per_update, self._cfg.algo.sampling
        most = wanted * (1 + (sampling.max_resamples or 0))
        oldest = state.update - self._cfg.rollout.max_staleness
        stale: list[int] = []
        uniform: list[int] = []
        tasks: dict[int, Task] = {}
        taken: list[Trajectory] = []
        while True:
            self._fill_places(state)
            verdict = judge(self._look(oldest), oldest=oldest, wanted=wanted, most=most - len(uniform))
            stale += verdict.stale
            self._drop(verdict.stale, state)
            for number in (*verdict.uniform, *(verdict.full if verdict.is_enough else ())):
                tasks[number] = self._started[number]
                taken += self._take(number)
            if len(uniform) // wanted < (len(uniform) + len(verdict.uniform)) // wanted:
                self._calls.check(self._ranks)
            uniform += verdict.uniform
            if verdict.is_enough:
                break
            if not (verdict.stale or verdict.uniform):
                self._ahead.wait(LOOK_EVERY_S)
        played = self._of_all(tasks, taken)
        state.next_task = self._next_number
        state.count(played)
        self._calls.check(self._ranks)
        self._calls, self._times_lost = self._calls_from_now(), 0
        masked = count_masked(played)
        refuse_if_nothing_fits(played, self._rules)
        if not verdict.full:
            log.warning("no group with differing rewards among %d; the last ones are used as they came", len(uniform))
        chosen = set(verdict.full or uniform[-wanted:])
        kept = [trajectory for trajectory in played if trajectory.group in chosen]
        batches = -(-len(tasks) // wanted)
        metrics = describe_played(played, self._cfg, masked=masked, uniform=len(uniform), batches=batches)
        metrics["rollout/stale_groups"] = float(len(stale))
        return kept, metrics | describe_staleness(kept, state.update)

    def _fill_places(self, state: TrainState) -> None:
        """Those that an update of this run can still need."""
        self._next_number = max(self._next_number, state.next_task)
        updates = min(1 + self._cfg.rollout.max_staleness, max(self._cfg.trainer.updates - state.update, 1))
        free = updates * self._cfg.trainer.tasks_per_update - len(self._started)
        for task in training_tasks(self._tasks, self._next_number, free, seed=self._cfg.seed):
            self._started[self._next_number] = task
            self._play(self._next_number)
            self._next_number += 1

    def _play(self, number: int) -> None:
        if number % self._ranks.size == self._ranks.rank:
            self._ahead.start(number, self._started[number])

    def _look(self, oldest: int) -> list[Look]:
        """A common point: what all ranks have finished or may drop, by its number. Where the engine was lost on one of
        them, all play from the beginning what is not finished.

        Raises:
            Interrupted: a signal has asked one of them to end.
        """
        while True:
            with looking():
                self._ranks.obey()
                parts = self._ranks.of_all((self._own_looks(oldest), self._reason_of_loss()))
            if self._progress:
                size, needed = self._cfg.algo.group_size, self._cfg.trainer.tasks_per_update
                ended = sum(group.finished for group in self._ahead.groups.values()) * self._ranks.size
                self._progress(min(ended, size * needed), size * needed)
            reasons = [reason for _, reason in parts if reason is not None]
            if not reasons:
                return sorted((look for looks, _ in parts for look in looks), key=lambda look: look.number)
            self._revive(reasons[0])

    def _own_looks(self, oldest: int) -> list[Look]:
        drops_uniform, looks = self._cfg.algo.sampling.drop_uniform_groups, []
        for number, group in self._ahead.groups.items():
            is_finished = group.is_finished  # before its version: a step that comes in between may be older
            version = group.oldest
            if is_finished or (version is not None and version < oldest):
                is_uniform = is_finished and drops_uniform and not informative_groups(group.trajectories)
                looks.append(Look(number, version, is_uniform))
        return looks

    def _reason_of_loss(self) -> str | None:
        """What has ended a group by any other reason comes out as it is."""
        errors = [group.error for group in self._ahead.groups.values() if group.error is not None]
        for error in errors:
            if not isinstance(error, EngineLost):
                raise error
        return str(errors[0]) if errors else None

    def _revive(self, reason: str) -> None:
        self._times_lost += 1
        if self._times_lost > MOST_REVIVALS:
            raise ServerDown(
                f"rollout.engine={self._cfg.rollout.engine} was lost {self._times_lost} times while one update waited "
                f"for its episodes; the last: {reason}"
            )
        log.warning("episodes are played again from their beginning: %s", reason)
        lost = self._ahead.end_unfinished()
        self._engine.revive()
        for number in lost:
            self._play(number)

    def _take(self, number: int) -> list[Trajectory]:
        """What this rank has played of a group, which leaves its place."""
        del self._started[number]
        return self._ahead.take(number) if number in self._ahead.groups else []

    def _drop(self, numbers: Sequence[int], state: TrainState) -> None:
        """What was begun of these groups counts as played."""
        own = [one for number in numbers for one in self._take(number) if one.steps]
        if numbers:
            for part in self._ranks.of_all([replace(one, task=NO_TASK, steps=list(one.steps)) for one in own]):
                state.count(part)

    def _of_all(self, tasks: Mapping[int, Task], taken: list[Trajectory]) -> list[Trajectory]:
        """The episodes of these groups, by their number, on every rank."""
        taken = sorted(taken, key=lambda one: (one.group, one.index))
        if self._ranks.size == 1:
            return taken
        size = self._cfg.algo.group_size
        places = [Trajectory(tasks[number], number, index) for number in sorted(tasks) for index in range(size)]
        return shared(places, taken, self._ranks)

    def _calls_from_now(self) -> FailedCalls:
        return FailedCalls(tallies_of(self._benchmark), self._cfg.trainer.health.max_failed_calls)


@contextmanager
def open_source(
    cfg: TrainConfig,
    engine: LearnersEngine,
    benchmark: Benchmark,
    make_agent: AgentMaker[int],
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Source | AheadSource]:
    """The source that `rollout.max_staleness` asks for; what it plays ends with the block."""
    if not cfg.rollout.max_staleness:
        yield Source(cfg, engine, benchmark, make_agent, progress, ranks)
        return
    if cfg.algo.loss.importance_cap is None and ranks.is_first:
        log.warning("rollout.max_staleness=%d: samples of earlier policies count as if today's had drawn them; "
                    "algo.loss.importance_cap=2 weighs them", cfg.rollout.max_staleness)  # fmt: skip
    with closing(AheadSource(cfg, engine, benchmark, make_agent, progress, ranks)) as source:
        yield source
