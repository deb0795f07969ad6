"""G2PO (arXiv 2606.22995): what a step's way from one observation to the next is worth, by values over all visits.

The value of an observation is the mean over all visits of it in a task. A step is compared with the other steps that
left the same observation, and its gain in value with the gains of all steps of the task.
"""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.advantages import group_relative
from empg_cli.algorithms.groups import group_index, group_mean
from empg_cli.algorithms.returns import returns_to_go


def visited_values(return_S: Tensor, next_S: Tensor, anchor_S: Tensor, *, gamma: float = 0.95) -> Tensor:
    """V(o), double [S], of the observation that each step answered: the mean over its visits of gamma^left R.

    Args:
        return_S: R of the step's episode, penalties left out.
        anchor_S: long, from `gigpo.anchor_groups`.
        gamma: per step; `left` counts the steps from the visit to the end, its own included.
    """
    left_S = returns_to_go(torch.ones_like(return_S, dtype=torch.double), next_S)
    index_S, num_anchors = group_index(anchor_S)
    return group_mean(gamma**left_S * return_S, index_S, num_anchors)[index_S]


def edge_relative(
    value_S: Tensor,
    return_S: Tensor,
    next_S: Tensor,
    anchor_S: Tensor,
    group_S: Tensor,
    *,
    scale_by_std: bool = True,
    unbiased: bool = False,
    penalty_S: Tensor,
) -> Tensor:
    """A^S = S_o(V(o') - penalty) + S_task(V(o') - V(o)) of a step from o to o'.

    S_o is relative to the steps that left o, S_task to all steps of the task.

    Args:
        value_S: V(o), from `visited_values`.
        return_S: R of the step's episode, which is what its end is worth.
        scale_by_std: both times; the paper's choice on ALFWorld, False on WebShop.
    """
    after_S = torch.where(next_S >= 0, value_S[next_S.clamp_min(0)], return_S.double())
    here_S = group_relative(after_S - penalty_S, anchor_S, scale_by_std=scale_by_std, unbiased=unbiased)
    gain_S = group_relative(after_S - value_S, group_S, scale_by_std=scale_by_std, unbiased=unbiased)
    return (here_S + gain_S).to(return_S.dtype)
