"""CISPO (MiniMax-M1, arXiv 2506.13585): clip the importance weight and keep every token's gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.losses import PolicyLoss, masked_difference, policy_loss, resolve_weights


def clipped_importance(
    logprob_ST: Tensor,
    old_logprob_ST: Tensor,
    advantage_S: Tensor,
    mask_ST: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    num_tokens: int | None = None,
    weight_ST: Tensor | None = None,
    importance_ST: Tensor | None = None,
) -> PolicyLoss:
    """- sum_st w_st sg[clip(r_st, 1 - clip_low, 1 + clip_high)] A_s log pi_st   (Eq. 4 and 5).

    Args:
        clip_low: 1 means no lower bound, as in the paper.
        clip_high: 4 caps the weight at 5, the value of ScaleRL (arXiv 2510.13786).
    """
    weight_ST = resolve_weights(mask_ST, num_tokens, weight_ST)
    log_ratio_ST = masked_difference(logprob_ST, old_logprob_ST, mask_ST).detach()
    ratio_ST = torch.exp(log_ratio_ST)
    clipped_ST = ratio_ST.clamp(1 - clip_low, 1 + clip_high)
    logprob_ST = torch.where(mask_ST.bool(), logprob_ST, 0.0)
    objective_ST = clipped_ST * advantage_S.detach()[:, None] * logprob_ST
    return policy_loss(
        objective_ST if importance_ST is None else objective_ST * importance_ST,
        weight_ST,
        log_ratio_ST,
        held_low_ST=ratio_ST < 1 - clip_low,
        held_high_ST=ratio_ST > 1 + clip_high,
    )
