"""GSPO (arXiv 2507.18071): one importance ratio for a whole sequence, clipped as one."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.losses import MAX_LOG_RATIO, PolicyLoss, masked_difference, ppo_objective, resolve_weights


def sequence_surrogate(
    logprob_ST: Tensor,
    old_logprob_ST: Tensor,
    advantage_S: Tensor,
    mask_ST: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    sequence_S: Tensor | None = None,
    length_normalised: bool = True,
    num_tokens: int | None = None,
    weight_ST: Tensor | None = None,
    importance_ST: Tensor | None = None,
) -> PolicyLoss:
    """Clipped objective of sequence ratios, negated, in the per-token form of Eq. 14 (GSPO-token).

    s = exp(mean over the sequence's tokens of log pi / pi_old)   (Eq. 7)
    - sum_st w_st min(s A_s, clip(s, 1 - clip_low, 1 + clip_high) A_s)

    With one advantage per sequence this is GSPO, value and gradient; the per-token form also takes the credit of EMPG,
    which differs from step to step. Use weighting `step` or `trajectory`, the mean over sequences of the paper.

    Args:
        sequence_S: the sequence of each step (`trajectory_S`: one ratio for a trajectory); None makes every step a
            sequence, as verl-agent does. All steps of a sequence must be in the batch given, or its ratio is not that
            of the sequence.
        length_normalised: False takes the sum of the log-ratios, the true likelihood ratio: TRL's RLOO loss.
    """
    weight_ST = resolve_weights(mask_ST, num_tokens, weight_ST)
    difference_ST = masked_difference(logprob_ST, old_logprob_ST, mask_ST)
    total_S, length_S = difference_ST.detach().sum(dim=1), mask_ST.sum(dim=1)
    if sequence_S is not None:
        ids, index_S = torch.unique(sequence_S, return_inverse=True)
        total_S = total_S.new_zeros(len(ids)).index_add_(0, index_S, total_S)[index_S]
        length_S = length_S.new_zeros(len(ids)).index_add_(0, index_S, length_S)[index_S]
    length_S = length_S.clamp_min(1)
    log_ratio_S = total_S / length_S if length_normalised else total_S
    is_within_S = log_ratio_S.abs() <= MAX_LOG_RATIO
    log_ratio_S = log_ratio_S.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    # The value is s for every token. Each token passes on 1/length of the gradient of a normalised ratio through its
    # own weight; the ratio of the sums has the full gradient in every token, hence the factor.
    slope_S1 = (torch.ones_like(total_S) if length_normalised else length_S)[:, None]
    # A ratio that was cut passes on none.
    own_ST = torch.where(mask_ST.bool() & is_within_S[:, None], logprob_ST - logprob_ST.detach(), 0.0)
    ratio_ST = torch.exp(log_ratio_S)[:, None] * torch.exp(slope_S1 * own_ST)
    return ppo_objective(
        ratio_ST,
        advantage_S,
        weight_ST,
        clip_low=clip_low,
        clip_high=clip_high,
        log_ratio_ST=difference_ST,
        importance_ST=importance_ST,
    )
