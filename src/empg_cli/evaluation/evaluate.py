"""Evaluation: every task of a split exactly once, in order, with intervals."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from empg_cli.agents.agent import AgentMaker
from empg_cli.agents.codec import P
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.node import BenchmarkNode as BenchmarkConfig
from empg_cli.config.schema import Rollout
from empg_cli.errors import UserError
from empg_cli.rollout.collect import collect, refuse_if_nothing_fits
from empg_cli.rollout.engine import Engine
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.info import mean_info, reported_numbers
from empg_cli.rollout.stepping import EnvironmentFailed, describe_failure, step_in_place
from empg_cli.stats.intervals import wilson_interval
from empg_cli.types import Progress, Status, Step, Task, Trajectory

log = logging.getLogger(__name__)

_STREAM = 4
"""Keeps this use of the seed apart from others."""
TASKS_AT_ONCE = 160
"""Bounds the memory of a large split; results do not depend on it but for rounding."""


class NothingJudged(UserError):  # noqa: N818 (a sentence for the user)
    """Every episode of an evaluation ended in an environment error: there is no rate to report."""


@dataclass(frozen=True, slots=True)
class Success:
    """Successes of some tasks, with the 95 % Wilson interval. Episodes that nobody could judge are counted apart."""

    kind: str
    n: int
    """Tasks that were judged; all but `not_judged` is about these."""
    success_rate: float
    lo: float
    hi: float
    score: float
    """Mean of the benchmark's own score."""
    steps: float
    """Mean steps of an episode."""
    valid_actions: float
    """Share of steps whose action was well-formed and accepted."""
    not_judged: int = 0
    """Episodes that ended in an environment error (`Status.ENV_ERROR`)."""
    info: dict[str, float] = field(default_factory=dict)
    """Means of the numbers that the environments report."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    split: str
    temperature: float
    total: Success
    kinds: list[Success]
    """Of the task types with an episode that was judged."""
    trajectories: list[Trajectory]
    averages: list[dict[str, Any]]
    """Deep Search: rows of `deepsearch.report` over ID, OOD and all sources; empty elsewhere."""

    @property
    def success_rate(self) -> float:
        return self.total.success_rate

    def metrics(self, benchmark: str) -> dict[str, float]:
        """Under the names of docs/metrics.md.

        Args:
            benchmark: family of the numbers that its environments report.
        """
        total = self.total
        metrics = {
            "eval/success_rate": total.success_rate,
            "eval/success_rate_lo": total.lo,
            "eval/success_rate_hi": total.hi,
            "eval/score": total.score,
            "eval/n": float(total.n),
            "eval/not_judged": float(total.not_judged),
            "eval/length/mean": total.steps,
            "eval/valid_action_frac": total.valid_actions,
        }
        metrics |= {f"eval/{benchmark}/{name}": mean for name, mean in total.info.items()}
        metrics |= {f"eval/{row['name'].lower()}/success_rate": row["success_rate"] for row in self.averages}
        return metrics | {f"eval/{kind.kind}/success_rate": kind.success_rate for kind in self.kinds}

    def tasks(self) -> list[dict[str, Any]]:
        """One row per task, in order: what paired comparisons need. Not judged: success and score are None."""
        return [
            {
                "task_id": trajectory.task.task_id,
                "kind": trajectory.task.kind,
                "success": trajectory.success if trajectory.is_scored else None,
                "score": trajectory.score if trajectory.is_scored else None,
                "steps": len(trajectory.steps),
                "status": str(trajectory.status),
                **({"info": trajectory.info} if trajectory.info else {}),
                **({"error": trajectory.error} if trajectory.error else {}),
            }
            for trajectory in self.trajectories
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the trajectories, as plain data."""
        plain: dict[str, Any] = {
            "split": self.split,
            "temperature": self.temperature,
            "total": asdict(self.total),
            "kinds": [asdict(kind) for kind in self.kinds],
        }
        return plain | ({"averages": self.averages} if self.averages else {})


def evaluate(
    engine: Engine[P],
    benchmark: Benchmark,
    make_agent: AgentMaker[P],
    settings: BenchmarkConfig,
    rollout: Rollout,
    *,
    seed: int,
    sample: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Play the first `eval_tasks` tasks of `settings.split` at `rollout.eval_temperature` (0 = greedy).

    The random numbers depend on the seed, the sample and the task alone, so two policies are compared on equal draws.

    Args:
        sample: which attempt at each task this is, with this seed.
    """
    tasks = evaluation_tasks(benchmark, settings)
    rules = episode_rules(rollout, settings, temperature=rollout.eval_temperature, top_p=rollout.eval_top_p)
    trajectories: list[Trajectory] = []

    def report(done: int, _: int) -> None:
        if progress:
            progress(len(trajectories) + done, len(tasks))

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
        )
    refuse_if_nothing_fits(trajectories, rules)
    return summarise(trajectories, benchmark=benchmark.name, split=settings.split, temperature=rollout.eval_temperature)


def evaluate_expert(
    benchmark: Benchmark, settings: BenchmarkConfig, *, seed: int, progress: Progress | None = None
) -> Evaluation:
    """The same for the benchmark's expert: what a competent agent reaches."""
    tasks = evaluation_tasks(benchmark, settings)
    trajectories = []
    for number, task in enumerate(tasks):
        trajectories.append(_play_expert(benchmark, task, number, random.Random(f"expert/{seed}/{number}")))
        if progress:
            progress(number + 1, len(tasks))
    return summarise(trajectories, benchmark=benchmark.name, split=settings.split, temperature=0.0)


def _play_expert(benchmark: Benchmark, task: Task, number: int, rng: random.Random) -> Trajectory:
    trajectory = Trajectory(task, group=number, index=0, status=Status.FAILED)
    env = benchmark.make_env(task)
    env.reset()
    for action in benchmark.expert(env, rng):
        trajectory.steps.append(step := Step([], [], [], [], action=action))
        try:
            result = step_in_place(env, action)
        except EnvironmentFailed as failed:
            trajectory.error, trajectory.status = describe_failure(failed.error, task), Status.ENV_ERROR
            break
        step.admissible, step.reward = result.valid, result.reward
        trajectory.info = reported_numbers(result.info)
        if result.done:
            trajectory.success, trajectory.score = result.success, result.score
            trajectory.status = Status.SUCCESS if result.success else Status.STEP_LIMIT
            break
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
    """
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
