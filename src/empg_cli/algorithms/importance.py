"""Truncated importance sampling: repair the gap between the engine that sampled and the model that trains."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.losses import masked_difference


def truncated_importance(
    old_logprob_ST: Tensor, rollout_logprob_ST: Tensor, mask_ST: Tensor, *, cap: float = 2.0
) -> Tensor:
    """min(pi_old / pi_rollout, cap) of each token, without gradient; 0 where masked.

    pi_old is the training model before the update, pi_rollout what the engine reported while sampling (Yao et al.
    2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"). Exactly 1 where both agree.
    """
    gap_ST = masked_difference(old_logprob_ST, rollout_logprob_ST, mask_ST).detach()
    return torch.exp(gap_ST).clamp(max=cap) * mask_ST
