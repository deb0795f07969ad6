"""The numbers that environments report in `StepResult.info`, for any benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from empg_cli.types import Trajectory


def reported_numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an `info`; yes and no count as 1 and 0."""
    return {name: float(value) for name, value in info.items() if isinstance(value, Real)}


def mean_info(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean of each number over the episodes that report it, in the order of appearance."""
    values: dict[str, list[float]] = {}
    for trajectory in trajectories:
        for name, value in trajectory.info.items():
            values.setdefault(name, []).append(value)
    return {name: sum(column) / len(column) for name, column in values.items()}
