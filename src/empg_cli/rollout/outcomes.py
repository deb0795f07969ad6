"""What came out of the episodes that were played, under the names of docs/metrics.md, for any benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from empg_cli.benchmarks.base import StepResult
from empg_cli.types import Status, Trajectory


def describe_rollout(played: Sequence[Trajectory], benchmark: str) -> dict[str, float]:
    """What happened in the episodes that were scored, and how many were not.

    Args:
        played: all of an update, those of groups that dynamic sampling dropped included.
        benchmark: family of the numbers that its environments report.
    """
    trajectories = [trajectory for trajectory in played if trajectory.is_scored]
    episodes = max(len(trajectories), 1)
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    lengths = [len(trajectory.steps) for trajectory in trajectories]
    tokens = [len(step.response_ids) for step in steps]
    metrics = {
        "episode/success_rate": sum(t.success for t in trajectories) / episodes,
        "episode/score": sum(t.score for t in trajectories) / episodes,
        "episode/reward/mean": sum(t.reward for t in trajectories) / episodes,
        "episode/length/mean": sum(lengths) / episodes,
        "num_turns/mean": sum(lengths) / episodes,
        "num_turns/max": float(max(lengths, default=0)),
        "num_turns/min": float(min(lengths, default=0)),
        "episode/malformed_frac": _share(not step.well_formed for step in steps),
        "episode/refused_frac": _share(not step.admissible for step in steps),
        "episode/invalid_action_frac": _share(not (step.well_formed and step.admissible) for step in steps),
        "response_length/mean": sum(tokens) / max(len(tokens), 1),
        "response_length/max": float(max(tokens, default=0)),
        "response_length/clip_ratio": _share(step.was_cut for step in steps),
    }
    metrics["episode/context_overflow_frac"] = _share(t.status is Status.CONTEXT_OVERFLOW for t in trajectories)
    metrics["episode/env_error_frac"] = _share(not t.is_scored for t in played)
    return metrics | {f"{benchmark}/{name}": mean for name, mean in mean_info(trajectories).items()}


def describe_batch(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What the episodes that train look like; with dynamic sampling these are not all that were played."""
    episodes = max(len(trajectories), 1)
    return {
        "batch/episodes": float(len(trajectories)),
        "batch/groups": float(len({trajectory.group for trajectory in trajectories})),
        "batch/success_rate": sum(t.success for t in trajectories) / episodes,
        "batch/reward/mean": sum(t.reward for t in trajectories) / episodes,
    }


def end_of(result: StepResult, *, steps: int, max_steps: int) -> Status | None:
    """How this step, the last of so many, ends its episode; None = it goes on. An environment that says nothing after
    `max_steps` is ended there: one of a user's that never ends would play for ever."""
    if not result.done:
        return Status.STEP_LIMIT if steps >= max_steps else None
    if result.success:
        return Status.SUCCESS
    at_limit = steps >= max_steps if result.at_limit is None else result.at_limit
    return Status.STEP_LIMIT if at_limit else Status.FAILED


def reported_numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that an environment reports in `StepResult.info`; yes and no count as 1 and 0, NaN and infinity are
    no numbers."""
    found = {name: float(value) for name, value in info.items() if isinstance(value, Real)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def mean_info(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean of each number over the episodes that report it, in the order of appearance."""
    values: dict[str, list[float]] = {}
    for trajectory in trajectories:
        for name, value in trajectory.info.items():
            values.setdefault(name, []).append(value)
    return {name: sum(column) / len(column) for name, column in values.items()}


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / max(len(values), 1)
