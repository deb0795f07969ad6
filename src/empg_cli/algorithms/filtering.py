"""Which groups can teach something (DAPO's dynamic sampling) and what overlong trajectories lose."""

from __future__ import annotations

from torch import Tensor

from empg_cli.algorithms.groups import checked, group_index, group_range


def informative(reward_N: Tensor, group_N: Tensor, *, tolerance: float = 1e-6) -> Tensor:
    """bool [N]: True for the members of groups whose rewards are not all equal (arXiv 2503.14476, Eq. 11).

    A group of one member is never informative. Differences up to `tolerance` are rounding, not signal. DAPO looks at
    the outcome alone: penalties that differ inside a group of failures make it informative.
    """
    reward_N = checked("reward_N", reward_N, group_N)
    index_N, num_groups = group_index(group_N)
    low_G, high_G = group_range(reward_N, index_N, num_groups)
    return (high_G - low_G > tolerance)[index_N]


def uniform_fraction(reward_N: Tensor, group_N: Tensor) -> float:
    """Share of groups whose rewards are all equal; 0 for an empty batch."""
    index_N, num_groups = group_index(group_N)
    low_G, high_G = group_range(checked("reward_N", reward_N, group_N), index_N, num_groups)
    return float((high_G - low_G <= 1e-6).double().mean()) if num_groups else 0.0


def soft_overlong_penalty(num_tokens_N: Tensor, *, limit: int, buffer: int, penalty: float = 1.0) -> Tensor:
    """Reward that long trajectories lose, float [N] in [-penalty, 0] (arXiv 2503.14476, Eq. 13).

    0 up to limit - buffer tokens, then falling linearly, -penalty from `limit` on.

    Args:
        num_tokens_N: sampled tokens of each trajectory.
        limit: L_max of the paper (20,480 there).
        buffer: L_cache of the paper (4,096 there); must lie in 1..limit.
    """
    if not 1 <= buffer <= limit:
        raise ValueError(f"buffer must lie in 1..limit ({limit}), got {buffer}")
    excess_N = (num_tokens_N - (limit - buffer)).clamp(min=0).float() / buffer
    return -penalty * excess_N.clamp(max=1.0)
