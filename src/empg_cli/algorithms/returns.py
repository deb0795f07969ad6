"""Discounted rewards-to-go of steps and the steps before, following `next_S` instead of row order."""

from __future__ import annotations

import torch
from torch import Tensor


def returns_to_go(reward_S: Tensor, next_S: Tensor, gamma: float = 1.0) -> Tensor:
    """R_t = r_t + gamma R_{t+1}: what each step and its successors earn, discounted per step (not per token).

    Doubles the look-ahead each round, so a trajectory of L steps takes log2(L) rounds and rows may stand in any order.

    Args:
        next_S: long, row of the following step of the same trajectory, -1 if none.
    """
    if reward_S.shape != next_S.shape or reward_S.ndim != 1:
        raise ValueError(
            f"reward_S and next_S must be one-dimensional and equally long, "
            f"got shapes {tuple(reward_S.shape)} and {tuple(next_S.shape)}"
        )
    return_S, jump_S, discount = reward_S.clone(), next_S, gamma
    for _ in range(len(next_S).bit_length()):
        has_next_S = jump_S >= 0
        if not has_next_S.any():
            return return_S
        target_S = jump_S.clamp_min(0)
        return_S = return_S + discount * torch.where(has_next_S, return_S[target_S], 0.0)
        jump_S = torch.where(has_next_S, jump_S[target_S], -1)
        discount *= discount
    if (jump_S >= 0).any():
        raise ValueError("next_S runs in a circle: some step follows itself")
    return return_S


def previous_steps(next_S: Tensor) -> Tensor:
    """long [S]: row of the preceding step of the same trajectory, -1 if none.

    `returns_to_go` along it sums what came before instead of what comes.
    """
    rows_S = torch.arange(len(next_S), device=next_S.device)
    has_next_S = next_S >= 0
    return torch.full_like(next_S, -1).scatter_(0, next_S[has_next_S], rows_S[has_next_S])
