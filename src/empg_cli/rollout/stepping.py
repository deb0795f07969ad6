"""The border to the environments: one step of many, where a failure ends one episode and never the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from empg_cli.benchmarks.base import Benchmark, Env, StepResult, StepsTogether, UnscoredError
from empg_cli.services.errors import ServiceError
from empg_cli.types import Task

log = logging.getLogger(__name__)


def step_all(benchmark: Benchmark, envs: Sequence[Env], actions: Sequence[str]) -> Sequence[StepResult | BaseException]:
    """The results in order, with the exception of an environment in the place of its result.

    Environments that wait for a network step at once (`StepsTogether`), the others one after the other, in place.
    """
    if isinstance(benchmark, StepsTogether):
        return benchmark.step_many(envs, actions)
    return [_step(env, action) for env, action in zip(envs, actions, strict=True)]


def _step(env: Env, action: str) -> StepResult | Exception:
    try:
        return env.step(action)
    except Exception as error:
        return error


def describe_failure(error: BaseException, task: Task) -> str:
    """What goes into `Trajectory.error`. An error that nobody foresaw is logged with its traceback."""
    if not isinstance(error, UnscoredError | ServiceError):
        log.error("the environment failed on %s", task.task_id, exc_info=error)
    return f"{type(error).__name__}: {error}"
