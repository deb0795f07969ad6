"""HGPO (arXiv 2602.22817): compare steps that answered the same observation after the same earlier observations.

Two steps in the same state may have read different prompts, as a prompt holds the last observations too. HGPO compares
a step with all that share its observation, with those that share the last two, and so on, and trusts the closer
comparisons more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.advantages import group_relative
from empg_cli.algorithms.groups import group_index
from empg_cli.algorithms.returns import previous_steps, returns_to_go

ROUNDING = 1e-9
"""An advantage below it is none: the rest that sums leave of a return equal to its group's mean."""


def history_groups(anchor_S: Tensor, next_S: Tensor, history: int) -> list[Tensor]:
    """Groups of steps by their last k observations in order, for k = 1 .. `history` + 1.

    Args:
        anchor_S: long, from `gigpo.anchor_groups`.

    Returns:
        For each k a long [S], -1 where the episode has not had k observations.
    """
    previous_S = previous_steps(next_S)
    levels = [anchor_S]
    for _ in range(history):
        before_S = torch.where(previous_S >= 0, levels[-1][previous_S.clamp_min(0)], -1)
        sequence_S, _ = group_index(before_S * (len(anchor_S) + 1) + anchor_S)
        levels.append(torch.where(before_S >= 0, sequence_S, -1))
    return levels


def history_relative(
    reward_S: Tensor,
    next_S: Tensor,
    anchor_S: Tensor,
    *,
    history: int,
    alpha: float = 1.0,
    gamma: float = 0.95,
    scale_by_std: bool = True,
    unbiased: bool = False,
    penalty_S: Tensor | None = None,
) -> Tensor:
    """A = sum_k w_k A_k / sum_k w_k over the k with A_k != 0, w_k = (k + 1)^alpha; 0 where there is none.

    A_k is the discounted reward-to-go relative to the group of steps with the same last k observations, k = 1 .. K + 1
    (weights and omissions as in the authors' `recipe/hgpo` of verl-agent). With K = 0 it is GiGPO's A^S.

    Args:
        anchor_S: long, from `gigpo.anchor_groups`.
        history: K, how many earlier observations may have to agree.
        alpha: 0 weighs all k alike.
        penalty_S: taken off a step's own discounted return and off no earlier step's; None for nothing.
    """
    return_S = returns_to_go(reward_S.double(), next_S, gamma)
    if penalty_S is not None:
        return_S = return_S - penalty_S
    total_S, weights_S = torch.zeros_like(return_S), torch.zeros_like(return_S)
    for k, level_S in enumerate(history_groups(anchor_S, next_S, history), start=1):
        is_there_S = level_S >= 0
        advantage_S = torch.zeros_like(return_S)
        advantage_S[is_there_S] = group_relative(
            return_S[is_there_S], level_S[is_there_S], scale_by_std=scale_by_std, unbiased=unbiased
        )
        says_something_S = advantage_S.abs() > ROUNDING
        weight_S = (k + 1) ** alpha * says_something_S
        total_S, weights_S = total_S + weight_S * advantage_S, weights_S + weight_S
    return torch.where(weights_S > 0, total_S / weights_S, 0.0).to(reward_S.dtype)
