"""The border to the environments: one step of many, where a failure ends one episode and never the run."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from empg_cli.benchmarks.base import Benchmark, DataError, Env, Observation, StepResult, StepsTogether, UnscoredError
from empg_cli.benchmarks.border import EnvironmentFailed, begin, no_event_loop, reason_of, step_in_place
from empg_cli.services.errors import ServiceError
from empg_cli.types import Status, Trajectory

log = logging.getLogger(__name__)


class Stepper:
    """Steps the environments of a rollout.

    Most are stepped in place. Environments that wait for a network (`StepsTogether`) are stepped in one call, once at
    least half of the episodes wait for theirs, so that a rollout waits few times and no turn for the slowest episode.
    """

    def __init__(self, benchmark: Benchmark, *, in_order: bool) -> None:
        """in_order: a call is waited for in place, so that nothing depends on how long it takes; else in a thread,
        while the engine goes on."""
        self._benchmark = benchmark
        self._said: set[str] = set()
        self._together = benchmark if isinstance(benchmark, StepsTogether) and benchmark.waits else None
        self._in_order = in_order
        self._episodes = 0
        self._waiting: list[tuple[Env, str, asyncio.Future[StepResult]]] = []
        self._call: asyncio.Task[None] | None = None

    @contextmanager
    def episode(self) -> Iterator[None]:
        """While an episode is played: it will take steps."""
        self._episodes += 1
        try:
            yield
        finally:
            self._episodes -= 1
            self._plan()

    def begin(self, trajectory: Trajectory) -> tuple[Env, Observation]:
        """The environment of an episode, reset. Raises EnvironmentFailed."""
        return begin(self._benchmark, trajectory.task)

    def end(self, trajectory: Trajectory, failed: EnvironmentFailed) -> None:
        """Note in a trajectory that its environment failed."""
        end_unscored(trajectory, failed, self._said)

    async def step(self, env: Env, action: str) -> StepResult:
        """Raises EnvironmentFailed."""
        if self._together is None:
            return step_in_place(env, action)
        answer: asyncio.Future[StepResult] = asyncio.get_running_loop().create_future()
        self._waiting.append((env, action, answer))
        self._plan()
        return await answer

    def _plan(self) -> None:
        if self._waiting and (self._call is None or self._call.done()):
            self._call = asyncio.create_task(self._step_those_that_wait())

    async def _step_those_that_wait(self) -> None:
        """Call after call, one at a time, as long as enough episodes wait."""
        while True:
            await asyncio.sleep(0)  # others may be about to ask
            self._waiting = [asked for asked in self._waiting if not asked[2].done()]  # cancelled
            if not self._waiting or 2 * len(self._waiting) < self._episodes:
                return
            asked, self._waiting = self._waiting, []
            try:
                results = await self._results([env for env, _, _ in asked], [action for _, action, _ in asked])
            except BaseException as error:  # of the call as a whole: a fault of the benchmark, which ends the rollout
                for _, _, answer in asked:
                    if not answer.done():
                        answer.set_exception(error)
                return
            for (_, _, answer), result in zip(asked, results, strict=True):
                if answer.done():
                    continue
                if isinstance(result, Exception | asyncio.CancelledError):
                    answer.set_exception(EnvironmentFailed(result))
                elif isinstance(result, BaseException):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

    async def _results(self, envs: Sequence[Env], actions: Sequence[str]) -> Sequence[StepResult | BaseException]:
        assert self._together is not None, "only such benchmarks wait"
        if self._in_order:
            with no_event_loop():
                results = self._together.step_many(envs, actions)
        else:
            results = await asyncio.to_thread(self._together.step_many, envs, actions)
        if len(results) != len(envs):
            raise ValueError(f"step_many gave {len(results)} results for {len(envs)} environments")
        return results


def end_unscored(trajectory: Trajectory, failed: EnvironmentFailed, said: set[str]) -> None:
    """Note in a trajectory that its environment failed, and why.

    Args:
        said: failures that the log has already; each is said once, however many episodes end with it.
    """
    trajectory.status, trajectory.error = Status.ENV_ERROR, reason_of(failed)
    error = failed.error
    trajectory.has_no_env = failed.at_start and not isinstance(error, UnscoredError | ServiceError)
    frames = traceback.extract_tb(error.__traceback__)
    name = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__
    if name in said or isinstance(error, UnscoredError | ServiceError):
        return
    said.add(name)
    if isinstance(error, DataError):
        log.warning("%s cannot be played: %s", trajectory.task.task_id, error)
    else:  # nobody foresaw it
        log.error("the environment failed on %s", trajectory.task.task_id, exc_info=error)
