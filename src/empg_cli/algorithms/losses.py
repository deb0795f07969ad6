"""Policy losses whose value cannot depend on how a batch was split: every denominator is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Weighting = Literal["token", "step", "trajectory", "constant"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut here (as verl does), with zero gradient beyond: exp(20) is 5e8, and infinity would become NaN."""


def token_weights(
    mask_ST: Tensor,
    trajectory_S: Tensor,
    weighting: Weighting,
    *,
    constant_tokens: int | None = None,
    num_units: int | None = None,
) -> Tensor:
    """Weight of every token in the loss, float [S, T]; 0 where masked. All but `constant` sum to 1.

    token: every token counts once (DAPO, arXiv 2503.14476, Eq. 8).
    step: the mean over steps of the mean over their tokens (GRPO and GSPO where a step is a row).
    trajectory: the mean over trajectories of the mean over their tokens (GRPO, arXiv 2402.03300, Eq. 3).
    constant: token sums over trajectories x `constant_tokens` (Dr. GRPO, arXiv 2503.20783): no bias to short ones.

    Compute it over all steps of one optimiser step, before splitting into micro-batches.

    Args:
        num_units: tokens, steps or trajectories in the whole optimiser step over all ranks, from `count_units`; the
            weights of all ranks then sum to 1. Without it those in `mask_ST` are counted.
    """
    units = count_units(mask_ST, trajectory_S, weighting) if num_units is None else num_units
    mask_ST = mask_ST.float()
    length_S = mask_ST.sum(dim=1)
    match weighting:
        case "token":
            share_S = torch.ones_like(length_S)
        case "step":
            share_S = 1 / length_S.clamp_min(1)
        case "trajectory":
            _, index_S = torch.unique(trajectory_S, return_inverse=True)
            length_N = length_S.new_zeros(len(length_S)).index_add_(0, index_S, length_S)
            share_S = 1 / length_N[index_S].clamp_min(1)
        case "constant":
            if constant_tokens is None:
                raise ValueError("weighting 'constant' needs constant_tokens, the tokens by which sums are divided")
            share_S = torch.full_like(length_S, 1 / constant_tokens)
        case _:
            raise ValueError(f"unknown weighting {weighting!r}: choose token, step, trajectory or constant")
    return mask_ST * (share_S / max(units, 1))[:, None]


def count_units(mask_ST: Tensor, trajectory_S: Tensor, weighting: Weighting) -> int:
    """What counts once under `weighting`: trained tokens, steps with a trained token, or trajectories with one."""
    has_token_S = mask_ST.bool().any(dim=1)
    match weighting:
        case "token":
            return int(mask_ST.sum())
        case "step":
            return int(has_token_S.sum())
        case "trajectory" | "constant":
            return len(torch.unique(trajectory_S[has_token_S]))
        case _:
            raise ValueError(f"unknown weighting {weighting!r}: choose token, step, trajectory or constant")


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A loss and its diagnostics, all weighted sums: over micro-batches they add up to the value of the batch."""

    loss: Tensor
    """Scalar with gradient."""
    clip_fraction_low: Tensor
    """Share of tokens held at 1 - clip_low (PPO: negative advantage, ratio below)."""
    clip_fraction_high: Tensor
    """Share of tokens held at 1 + clip_high (PPO: positive advantage, ratio above)."""
    dual_clip_fraction: Tensor
    """Share of tokens held by the dual clip (negative advantage, ratio above it); 0 without one."""
    ppo_kl: Tensor
    """Mean of log pi_old - log pi: the k1 estimate of KL(old policy, policy)."""

    @property
    def clip_fraction(self) -> Tensor:
        """Share of tokens held by either bound of the clip."""
        return self.clip_fraction_low + self.clip_fraction_high


def clipped_surrogate(
    logprob_ST: Tensor,
    old_logprob_ST: Tensor,
    advantage_S: Tensor,
    mask_ST: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    num_tokens: int | None = None,
    weight_ST: Tensor | None = None,
    importance_ST: Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped objective, negated, with separate bounds (arXiv 1707.06347 Eq. 7; DAPO arXiv 2503.14476 Eq. 10).

    - sum_st w_st min(r_st A_s, clip(r_st, 1 - clip_low, 1 + clip_high) A_s),   r_st = pi / pi_old

    Args:
        advantage_S: the credit of each step, shared by its tokens.
        mask_ST: bool, True on sampled tokens only; observations never train.
        dual_clip: c > 1 bounds the objective of negative advantages from below by c A (arXiv 1912.09729);
            verl uses 3.
        num_tokens: trained tokens in the whole optimiser step, over all micro-batches and ranks. Passing it in is
            what makes the gradient independent of the split. Read when `weight_ST` is not given.
        weight_ST: these rows of `token_weights`, in place of mask_ST / num_tokens.
        importance_ST: from `importance.truncated_importance`; multiplies the objective of each token.
    """
    log_ratio_ST = masked_difference(logprob_ST, old_logprob_ST, mask_ST)
    return ppo_objective(
        torch.exp(log_ratio_ST),
        advantage_S,
        resolve_weights(mask_ST, num_tokens, weight_ST),
        clip_low=clip_low,
        clip_high=clip_high,
        dual_clip=dual_clip,
        log_ratio_ST=log_ratio_ST,
        importance_ST=importance_ST,
    )


def ppo_objective(
    ratio_ST: Tensor,
    advantage_S: Tensor,
    weight_ST: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    log_ratio_ST: Tensor,
    importance_ST: Tensor | None,
) -> PolicyLoss:
    """The clip that token ratios and sequence ratios share; arguments as in `clipped_surrogate`."""
    advantage_S1 = advantage_S.detach()[:, None]
    clipped_ST = ratio_ST.clamp(1 - clip_low, 1 + clip_high)
    objective_ST = torch.minimum(ratio_ST * advantage_S1, clipped_ST * advantage_S1)
    held_dual_ST = None
    if dual_clip is not None:
        held_dual_ST = (advantage_S1 < 0) & (objective_ST < dual_clip * advantage_S1)
        objective_ST = torch.where(held_dual_ST, dual_clip * advantage_S1, objective_ST)
    return policy_loss(
        objective_ST if importance_ST is None else objective_ST * importance_ST,
        weight_ST,
        log_ratio_ST,
        held_low_ST=(ratio_ST < 1 - clip_low) & (advantage_S1 < 0),
        held_high_ST=(ratio_ST > 1 + clip_high) & (advantage_S1 > 0),
        held_dual_ST=held_dual_ST,
    )


def policy_loss(
    objective_ST: Tensor,
    weight_ST: Tensor,
    log_ratio_ST: Tensor,
    *,
    held_low_ST: Tensor,
    held_high_ST: Tensor,
    held_dual_ST: Tensor | None = None,
) -> PolicyLoss:
    """Weighted sums of an objective and of the tokens that its clip held."""
    return PolicyLoss(
        loss=-(weight_ST * objective_ST).sum(),
        clip_fraction_low=(weight_ST * held_low_ST).sum(),
        clip_fraction_high=(weight_ST * held_high_ST).sum(),
        dual_clip_fraction=weight_ST.new_zeros(()) if held_dual_ST is None else (weight_ST * held_dual_ST).sum(),
        ppo_kl=-(weight_ST * log_ratio_ST.detach()).sum(),
    )


def masked_difference(logprob_ST: Tensor, other_ST: Tensor, mask_ST: Tensor) -> Tensor:
    """logprob - other within +-MAX_LOG_RATIO, exactly 0 where masked, whatever stands there (-inf or NaN)."""
    difference_ST = torch.where(mask_ST.bool(), logprob_ST - other_ST, 0.0)
    return difference_ST.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def resolve_weights(mask_ST: Tensor, num_tokens: int | None, weight_ST: Tensor | None) -> Tensor:
    """The token weights that a loss uses: `weight_ST`, or every token alike."""
    if weight_ST is not None:
        return weight_ST
    if num_tokens is None:
        raise ValueError("give num_tokens (trained tokens of the whole optimiser step) or weight_ST")
    return mask_ST.float() / max(num_tokens, 1)
