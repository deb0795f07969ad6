"""GraphGPO (arXiv 2605.26684): how near to success a step led, in the graph of all that was seen at a task.

The nodes of a task are its observations, the edges its steps, whoever took them; a step that ended a solved episode
leads to success. So a step of a failed episode is worth something if another one went on from there and succeeded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.advantages import group_relative
from empg_cli.algorithms.groups import group_index, group_range


def distance_to_success(anchor_S: Tensor, next_S: Tensor, is_won_S: Tensor, group_S: Tensor) -> Tensor:
    """double [S]: steps that are left at least from where each step led; 0 for the last one of a solved episode.

    Where no way to success is known, and at the end of a failed episode, it is one more than the longest of the task.

    Args:
        anchor_S: long, 0 .. number of anchors - 1, from `gigpo.anchor_groups`.
        is_won_S: bool, the step's episode was solved.
    """
    left_V = torch.full((int(anchor_S.max()) + 1 if len(anchor_S) else 0,), torch.inf, dtype=torch.double)
    at_the_end_S = torch.where(is_won_S, 0.0, torch.inf).double()
    for _ in range(len(left_V) + 1):  # ways of one step, of two, ...; none passes an observation twice
        led_S = torch.where(next_S >= 0, left_V[anchor_S[next_S.clamp_min(0)]], at_the_end_S)
        nearer_V = left_V.scatter_reduce(0, anchor_S, led_S + 1, "amin")
        if nearer_V.equal(left_V):
            break
        left_V = nearer_V
    known_S = torch.where(left_V.isfinite(), left_V, 0.0)[anchor_S]
    index_S, num_groups = group_index(group_S)
    _, longest_G = group_range(known_S, index_S, num_groups)
    return torch.where(led_S.isfinite(), led_S, longest_G[index_S] + 1)


def graph_relative(
    distance_S: Tensor,
    anchor_S: Tensor,
    *,
    decay: float = 0.1,
    goal: float = 10.0,
    scale_by_std: bool = True,
    unbiased: bool = False,
    penalty_S: Tensor,
) -> Tensor:
    """A^G: goal decay^d less the step's penalty, relative to the steps that answered the same observation.

    Zero for lonely steps, and, penalties apart, in a task that nobody solved: all its distances are equal.

    Args:
        distance_S: d, from `distance_to_success`.
        decay: the paper's omega; 0.1 on ALFWorld, 0.2 on WebShop.
        goal: worth of reaching success, in rewards.
        penalty_S: what an invalid action cost (taken off here in the authors' code, not in the formula).
    """
    worth_S = goal * decay**distance_S - penalty_S
    return group_relative(worth_S, anchor_S, scale_by_std=scale_by_std, unbiased=unbiased).to(penalty_S.dtype)
