"""Evaluation: every task of a split exactly once, in order, with intervals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from empg_cli.agents.agent import AgentMaker
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.node import BenchmarkNode as BenchmarkConfig
from empg_cli.config.schema import Rollout
from empg_cli.evaluation.statistics import wilson_interval
from empg_cli.rollout.collect import Progress, collect, episode_rules
from empg_cli.rollout.engine import Engine
from empg_cli.types import Status, Step, Task, Trajectory

_STREAM = 4
"""Keeps this use of the seed apart from others."""
TASKS_AT_ONCE = 160
"""Bounds the memory of a large split; results do not depend on it but for rounding."""


@dataclass(frozen=True, slots=True)
class Success:
    """Successes of some tasks, with the 95 % Wilson interval."""

    kind: str
    n: int
    success_rate: float
    lo: float
    hi: float
    score: float
    """Mean of the benchmark's own score."""
    steps: float
    """Mean steps of an episode."""
    valid_actions: float
    """Share of steps whose action was well-formed and accepted."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    split: str
    temperature: float
    total: Success
    kinds: list[Success]
    trajectories: list[Trajectory]
    averages: list[dict[str, Any]]
    """Deep Search: rows of `deepsearch.report` over ID, OOD and all sources; empty elsewhere."""

    @property
    def success_rate(self) -> float:
        return self.total.success_rate

    def metrics(self) -> dict[str, float]:
        """Under the names of docs/metrics.md."""
        total = self.total
        metrics = {
            "eval/success_rate": total.success_rate,
            "eval/success_rate_lo": total.lo,
            "eval/success_rate_hi": total.hi,
            "eval/score": total.score,
            "eval/n": float(total.n),
            "eval/length/mean": total.steps,
            "eval/valid_action_frac": total.valid_actions,
        }
        return metrics | {f"eval/{kind.kind}/success_rate": kind.success_rate for kind in self.kinds}

    def tasks(self) -> list[dict[str, Any]]:
        """One row per task, in order: what paired comparisons need."""
        return [
            {
                "task_id": trajectory.task.task_id,
                "kind": trajectory.task.kind,
                "success": trajectory.success,
                "score": trajectory.score,
                "steps": len(trajectory.steps),
                "status": str(trajectory.status),
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
    engine: Engine,
    benchmark: Benchmark,
    make_agent: AgentMaker,
    settings: BenchmarkConfig,
    rollout: Rollout,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Evaluation:
    """Play the first `eval_tasks` tasks of `settings.split` at `rollout.eval_temperature` (0 = greedy).

    The random numbers depend on the seed and the task alone, so two policies are compared on equal draws.
    """
    tasks = evaluation_tasks(benchmark, settings)
    rules = episode_rules(rollout, settings, temperature=rollout.eval_temperature)
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
            stream=(_STREAM, seed, start),
            progress=report,
        )
    return summarise(trajectories, settings, temperature=rollout.eval_temperature)


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
    return summarise(trajectories, settings, temperature=0.0)


def _play_expert(benchmark: Benchmark, task: Task, number: int, rng: random.Random) -> Trajectory:
    trajectory = Trajectory(task, group=number, index=0, status=Status.FAILED)
    env = benchmark.make_env(task)
    env.reset()
    for action in benchmark.expert(env, rng):
        result = env.step(action)
        trajectory.steps.append(Step([], [], [], [], action=action, admissible=result.valid, reward=result.reward))
        if result.done:
            trajectory.success, trajectory.score = result.success, result.score
            trajectory.status = Status.SUCCESS if result.success else Status.STEP_LIMIT
            break
    return trajectory


def evaluation_tasks(benchmark: Benchmark, settings: BenchmarkConfig) -> Sequence[Task]:
    tasks = benchmark.tasks(settings.split)
    return tasks if settings.eval_tasks is None else tasks[: settings.eval_tasks]


def summarise(trajectories: Sequence[Trajectory], settings: BenchmarkConfig, *, temperature: float) -> Evaluation:
    names = sorted({trajectory.task.kind for trajectory in trajectories})
    kinds = [_success(name, [t for t in trajectories if t.task.kind == name]) for name in names]
    return Evaluation(
        split=settings.split,
        temperature=temperature,
        total=_success("all", trajectories),
        kinds=kinds,
        trajectories=list(trajectories),
        averages=_averages(settings.name, kinds),
    )


def _averages(benchmark: str, kinds: Sequence[Success]) -> list[dict[str, Any]]:
    if benchmark != "deepsearch":
        return []
    from empg_cli.benchmarks.deepsearch.report import averages  # it imports this package's statistics

    return averages([asdict(kind) for kind in kinds])


def _success(kind: str, trajectories: Sequence[Trajectory]) -> Success:
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
    )
