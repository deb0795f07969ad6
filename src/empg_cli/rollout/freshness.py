"""Which of the groups that are played while the policy learns may train, and how old what trains is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from empg_cli.rollout.masking import trainable
from empg_cli.types import Trajectory


@dataclass(frozen=True, slots=True)
class Look:
    """What ranks tell each other of a group that is finished, or may be too old already."""

    number: int
    oldest: int | None
    """Version of the policy at its oldest step; None = it has no step, and is never too old."""
    is_uniform: bool
    """Finished, and dynamic sampling drops it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Numbers of groups, lowest first."""

    stale: list[int]
    uniform: list[int]
    full: list[int]
    """Those that the update trains on, if it has enough by that."""
    is_enough: bool


def judge(looks: Sequence[Look], *, oldest: int, wanted: int, most: int) -> Verdict:
    """What becomes of groups. Each is looked at in turn, until there are enough: `wanted` that train, or `most` in all.

    Args:
        looks: by number.
        oldest: version of the policy that may train.
    """
    stale = [look.number for look in looks if look.oldest is not None and look.oldest < oldest]
    uniform: list[int] = []
    full: list[int] = []
    for look in looks:
        if len(full) == wanted or len(full) + len(uniform) == most:
            break
        if look.number not in stale:
            (uniform if look.is_uniform else full).append(look.number)
    return Verdict(stale, uniform, full, len(full) == wanted or len(full) + len(uniform) == most)


def describe_staleness(trajectories: Sequence[Trajectory], update: int) -> dict[str, float]:
    """Updates between the policy that sampled a step and the one that learns from it, over the steps that train."""
    ages = [update - step.policy_version for trajectory in trainable(trajectories) for step in trajectory.steps]
    return {
        "rollout/staleness/mean": sum(ages) / max(len(ages), 1),
        "rollout/staleness/max": float(max(ages, default=0)),
    }
