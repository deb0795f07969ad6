"""The border to environments and experts, ours and those from outside: what they raise is one kind of failure, which
ends one episode and never the run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

from empg_cli.benchmarks.base import Benchmark, DataError, Env, Observation, StepResult
from empg_cli.errors import UserError
from empg_cli.types import Task


class EnvironmentFailed(Exception):  # noqa: N818 (it failed, whatever the reason)
    """What an environment raised; it ends one episode."""

    def __init__(self, error: BaseException, *, at_start: bool = False) -> None:
        """at_start: the task has no environment: making or resetting it raised."""
        super().__init__(str(error))
        self.error, self.at_start = error, at_start


def begin(benchmark: Benchmark, task: Task) -> tuple[Env, Observation]:
    """A task's environment, reset. Raises EnvironmentFailed."""
    try:
        with no_event_loop():
            env = benchmark.make_env(task)
            return env, env.reset()
    except Exception as error:
        raise EnvironmentFailed(error, at_start=True) from error


def step_in_place(env: Env, action: str) -> StepResult:
    """Raises EnvironmentFailed."""
    try:
        with no_event_loop():
            return env.step(action)
    except Exception as error:
        raise EnvironmentFailed(error) from error


def expert_actions(benchmark: Benchmark, env: Env, rng: random.Random | None) -> Iterator[str]:
    """What the benchmark's expert does. Raises EnvironmentFailed where it gets lost; what a user can put right (there
    is no expert for these data) comes out as it is."""
    try:
        yield from benchmark.expert(env, rng)
    except UserError:
        raise
    except Exception as error:
        raise EnvironmentFailed(error) from error


@contextmanager
def no_event_loop() -> Iterator[None]:
    """An environment need not know that a rollout is a coroutine: it may call `asyncio.run` or what refuses to work
    where a loop runs. Nothing of ours runs meanwhile."""
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(running)


def reason_of(failed: EnvironmentFailed) -> str:
    """In one line; a message for users stands for itself."""
    error = failed.error
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
