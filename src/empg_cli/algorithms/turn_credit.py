"""Turn credit (prime-rl, pull request 3282): progress of a score of the state, spread over the steps that led to it."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.groups import group_centred, group_index
from empg_cli.algorithms.returns import previous_steps, returns_to_go


def progress(score_S: Tensor, next_S: Tensor) -> Tensor:
    """delta_t = v_t - v_{t-1}: by how much a step changed the score; 0 for the first, before which there is none."""
    previous_S = previous_steps(next_S)
    return torch.where(previous_S >= 0, score_S - score_S[previous_S.clamp_min(0)], 0.0)


def spread_backwards(progress_S: Tensor, next_S: Tensor, *, gamma: float) -> Tensor:
    """c_t = sum over s >= t of delta_s gamma^(s-t) / Z_s: each progress shared out once, most to the step that made it.

    Z_s = 1 + gamma + ... over the steps up to s, so the credits of an episode sum to its progress.
    """
    share_S = returns_to_go(torch.ones_like(progress_S), previous_steps(next_S), gamma)
    return returns_to_go(progress_S / share_S, next_S, gamma)


def turn_credit(score_S: Tensor, next_S: Tensor, trajectory_S: Tensor, tokens_S: Tensor, *, gamma: float) -> Tensor:
    """The credit of each step less the mean of its episode's tokens: it moves credit between steps and adds none.

    Args:
        score_S: v_t, the score of the state after each step.
        tokens_S: sampled tokens, at least one each.
    """
    credit_S = spread_backwards(progress(score_S.double(), next_S), next_S, gamma=gamma)
    index_S, num_trajectories = group_index(trajectory_S)
    return group_centred(credit_S, index_S, num_trajectories, tokens_S.double()).to(score_S.dtype)
