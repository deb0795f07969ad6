"""Evaluation: every task of a split exactly once, in order, with intervals."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from empg_cli.agents.agent import AgentMaker
from empg_cli.agents.codec import P
from empg_cli.benchmarks.base import Benchmark, tallies_of
from empg_cli.benchmarks.border import EnvironmentFailed, begin, expert_actions, step_in_place
from empg_cli.config.node import BenchmarkNode as BenchmarkConfig
from empg_cli.config.rollout import Rollout
from empg_cli.errors import UserError
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.collect import collect, refuse_if_nothing_fits
from empg_cli.rollout.engine import Engine
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.masking import refuse_if_broken
from empg_cli.rollout.outcomes import end_of, mean_info, reported_numbers
from empg_cli.rollout.stepping import end_unscored
from empg_cli.runs.evaluations import Evaluation, Success
from empg_cli.services.tally import FailedCalls
from empg_cli.stats.intervals import wilson_interval
from empg_cli.types import Progress, Status, Step, Task, Trajectory

log = logging.getLogger(__name__)

_STREAM = 4
"""Keeps this use of the seed apart from others."""
TASKS_AT_ONCE = 160
"""Bounds the memory of a large split; results do not depend on it but for rounding."""


class NothingJudged(UserError):  # noqa: N818 (a sentence for the user)
    """Every episode of an evaluation ended in an environment error: there is no rate to report."""


def evaluate(
    engine: Engine[P],
    benchmark: Benchmark,
    make_agent: AgentMaker[P],
    settings: BenchmarkConfig,
    rollout: Rollout,
    *,
    seed: int,
    sample: int = 0,
    max_failed_calls: float = 1.0,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Play the first `eval_tasks` tasks of `settings.split` at `rollout.eval_temperature` (0 = greedy).

    The random numbers depend on the seed, the sample and the task alone, so two policies are compared on equal draws.

    Args:
        sample: which attempt at each task this is, with this seed.
        max_failed_calls: share of calls of the benchmark's servers without an answer that is borne; 1 = any.

    Raises:
        ServerDown: there were more.
        NothingFits, NothingJudged: there is nothing to report.
    """
    tasks = evaluation_tasks(benchmark, settings)
    rules = episode_rules(rollout, settings, temperature=rollout.eval_temperature, top_p=rollout.eval_top_p)
    calls = FailedCalls(tallies_of(benchmark), max_failed_calls)
    trajectories: list[Trajectory] = []

    def report(done: int, _: int) -> None:
        if progress:  # the other ranks are about as far
            progress(min(len(trajectories) + done * ranks.size, len(tasks)), len(tasks))

    for start in range(0, len(tasks), TASKS_AT_ONCE):
        trajectories += collect(
            engine,
            benchmark,
            make_agent,
            tasks[start : start + TASKS_AT_ONCE],
            group_size=1,
            rules=rules,
            stream=(_STREAM, seed, start, sample) if sample else (_STREAM, seed, start),
            progress=report,
            ranks=ranks,
        )
        calls.check(ranks)
    refuse_if_nothing_fits(trajectories, rules)
    return summarise(trajectories, benchmark=benchmark.name, split=settings.split, temperature=rollout.eval_temperature)


def evaluate_expert(
    benchmark: Benchmark,
    settings: BenchmarkConfig,
    *,
    seed: int,
    max_failed_calls: float = 1.0,
    progress: Progress | None = None,
) -> Evaluation:
    """The same for the benchmark's expert: what a competent agent reaches."""
    tasks = evaluation_tasks(benchmark, settings)
    calls = FailedCalls(tallies_of(benchmark), max_failed_calls)
    trajectories = []
    said: set[str] = set()
    for number, task in enumerate(tasks):
        rng = random.Random(f"expert/{seed}/{number}")
        trajectories.append(_play_expert(benchmark, task, number, rng, said, max_steps=settings.max_steps))
        if progress:
            progress(number + 1, len(tasks))
        if (number + 1) % TASKS_AT_ONCE == 0 or number + 1 == len(tasks):
            calls.check()
    return summarise(trajectories, benchmark=benchmark.name, split=settings.split, temperature=0.0)


def _play_expert(
    benchmark: Benchmark, task: Task, number: int, rng: random.Random, said: set[str], *, max_steps: int
) -> Trajectory:
    """said: failures that the log has already."""
    trajectory = Trajectory(task, group=number, index=0, status=Status.FAILED)
    try:
        env, observation = begin(benchmark, task)
        shown = observation.text
        for action in expert_actions(benchmark, env, rng):
            trajectory.steps.append(step := Step([], [], [], [], action=action, observation=shown))
            result = step_in_place(env, action)
            shown = result.text
            step.admissible, step.reward, step.score = result.valid, result.reward, result.score
            trajectory.info = reported_numbers(result.info)
            if (end := end_of(result, steps=len(trajectory.steps), max_steps=max_steps)) is not None:
                trajectory.success, trajectory.score, trajectory.status = result.success, result.score, end
                break
    except EnvironmentFailed as failed:
        end_unscored(trajectory, failed, said)
    return trajectory


def evaluation_tasks(benchmark: Benchmark, settings: BenchmarkConfig) -> Sequence[Task]:
    tasks = benchmark.tasks(settings.split)
    return tasks if settings.eval_tasks is None else tasks[: settings.eval_tasks]


def summarise(trajectories: Sequence[Trajectory], *, benchmark: str, split: str, temperature: float) -> Evaluation:
    """
    Args:
        benchmark: name of the benchmark, which may report groups of task types.

    Raises:
        NothingJudged: not one of the episodes was scored.
        TasksBroken: most tasks cannot be played.
    """
    refuse_if_broken(trajectories)
    _report_not_judged(trajectories)
    names = sorted({trajectory.task.kind for trajectory in trajectories if trajectory.is_scored})
    kinds = [_success(name, [t for t in trajectories if t.task.kind == name]) for name in names]
    return Evaluation(
        split=split,
        temperature=temperature,
        total=_success("all", trajectories),
        kinds=kinds,
        trajectories=list(trajectories),
        averages=_averages(benchmark, kinds),
    )


def _report_not_judged(trajectories: Sequence[Trajectory]) -> None:
    errors = [trajectory.error for trajectory in trajectories if not trajectory.is_scored]
    if not errors:
        return
    summary = f"{len(errors)} of {len(trajectories)} episodes ended in an environment error, such as: {errors[0]}"
    if len(errors) == len(trajectories):
        raise NothingJudged(f"no episode of the evaluation could be judged: {summary}")
    log.warning("not judged: %s; they count in no rate", summary)


def _averages(benchmark: str, kinds: Sequence[Success]) -> list[dict[str, Any]]:
    """The columns of the paper's Table 2."""
    if benchmark != "deepsearch":
        return []
    from empg_cli.benchmarks.deepsearch.report import averages  # it imports this package's statistics

    return averages([asdict(kind) for kind in kinds])


def _success(kind: str, played: Sequence[Trajectory]) -> Success:
    trajectories = [trajectory for trajectory in played if trajectory.is_scored]
    n = len(trajectories)
    successes = sum(trajectory.success for trajectory in trajectories)
    lo, hi = wilson_interval(successes, n)
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    return Success(
        kind=kind,
        n=n,
        success_rate=successes / n,
        lo=lo,
        hi=hi,
        score=sum(trajectory.score for trajectory in trajectories) / n,
        steps=len(steps) / n,
        valid_actions=sum(step.well_formed and step.admissible for step in steps) / max(len(steps), 1),
        not_judged=len(played) - n,
        info=mean_info(trajectories),
    )
