"""Where settings choose formulas: rewards and entropies to credit, log-probs to loss; advantages: `advantage_of.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from empg_cli.algorithms.advantage_of import advantage_of
from empg_cli.algorithms.brought import brought_credit
from empg_cli.algorithms.cispo import clipped_importance
from empg_cli.algorithms.controls import batch_seed, controlled_modulation, ordered_credit
from empg_cli.algorithms.describe import Metrics, entropy_metrics, mean, modulation_metrics, summary
from empg_cli.algorithms.empg import Modulation, normalise_entropy
from empg_cli.algorithms.filtering import soft_overlong_penalty, uniform_fraction
from empg_cli.algorithms.gigpo import anchor_groups
from empg_cli.algorithms.gspo import sequence_surrogate
from empg_cli.algorithms.importance import truncated_importance
from empg_cli.algorithms.kl import kl_estimate
from empg_cli.algorithms.losses import PolicyLoss, clipped_surrogate, token_weights
from empg_cli.algorithms.normalise import normalise_between_quantiles, normalise_within_anchors
from empg_cli.algorithms.table import StepTable, step_table
from empg_cli.config import algo as schema
from empg_cli.types import Batch


@dataclass(frozen=True, slots=True)
class CreditParts:
    """How the credit of every step came about, for people who look at single trajectories."""

    entropy_S: Tensor
    """H_t, nats per token."""
    advantage_S: Tensor
    """Before EMPG."""
    weight_S: Tensor | None
    """g(H_t) as it was used, 1 where it was not; None without EMPG, like the next."""
    clarity_S: Tensor | None
    """f(H_{t+1}), before zeta."""
    credit_S: Tensor
    """What the loss uses."""


def compute_credit(algo: schema.Algo, batch: Batch | StepTable) -> tuple[Tensor, Metrics]:
    """The credit of every step, float [S], and what to log about it: `credit_parts` for those who need no more."""
    parts, metrics = credit_parts(algo, batch)
    return parts.credit_S, metrics


def credit_parts(algo: schema.Algo, batch: Batch | StepTable) -> tuple[CreditParts, Metrics]:
    """The credit of every step with what it is made of, and what to log about it.

    reward (less the overlong penalty) -> advantage of each trajectory -> spread to its steps -> EMPG.

    `batch` must be the whole rollout batch of one update: every statistic is over what it holds. Ranks gather their
    `step_table`s, merge them, and take their own slice of the result. The overlong penalty is applied here and nowhere
    else; `batch.reward_N` stays as the environment gave it.
    """
    table = batch if isinstance(batch, StepTable) else step_table(batch)
    reward_N, metrics = _shaped_reward(algo.overlong, table)
    metrics |= summary("critic/rewards", reward_N)
    metrics["group/zero_std_frac"] = uniform_fraction(table.reward_N, table.group_N)
    metrics |= entropy_metrics(table.entropy_S)
    advantage_S, advantage_metrics = advantage_of(algo.advantage, reward_N, table)
    parts, credit_metrics = _credit(algo.credit, advantage_S, table)
    return parts, metrics | advantage_metrics | credit_metrics | summary("critic/advantages", parts.credit_S)


@dataclass(frozen=True, slots=True)
class LossTerms:
    loss: Tensor
    """Scalar with gradient; call backward on it."""
    metrics: dict[str, Tensor]
    """Detached scalars, weighted sums like the loss: add them up over micro-batches and ranks."""


def loss_weights(
    settings: schema.Loss, mask_ST: Tensor, trajectory_S: Tensor, *, num_units: int | None = None
) -> Tensor:
    """`token_weights` under these settings, for all steps of one optimiser step."""
    return token_weights(
        mask_ST, trajectory_S, settings.weighting, constant_tokens=settings.constant_tokens, num_units=num_units
    )


def compute_loss(
    settings: schema.Loss,
    *,
    logprob_ST: Tensor,
    entropy_ST: Tensor,
    old_logprob_ST: Tensor,
    ref_logprob_ST: Tensor | None,
    credit_S: Tensor,
    mask_ST: Tensor,
    weight_ST: Tensor,
    trajectory_S: Tensor | None = None,
    rollout_logprob_ST: Tensor | None = None,
    total_weight: float = 1.0,
) -> LossTerms:
    """policy loss + kl_coef * KL(policy, reference) - entropy_coef * entropy, for the rows given.

    Args:
        weight_ST: these rows of `loss_weights`, which was computed over the whole optimiser step.
        ref_logprob_ST: None when kl_coef = 0.
        trajectory_S: read by GSPO with sequence = trajectory; the rows of a trajectory must come together.
        rollout_logprob_ST: what the engine reported while sampling, read when importance_cap is set; None when
            `old_logprob_ST` is that.
        total_weight: sum of `loss_weights` over the whole optimiser step. Metrics that are means or shares are divided
            by it, the loss is not. 1 but for weighting=constant.
    """
    metrics: dict[str, Tensor] = {}
    importance_ST = None
    if settings.importance_cap is not None and rollout_logprob_ST is not None:
        importance_ST = truncated_importance(old_logprob_ST, rollout_logprob_ST, mask_ST, cap=settings.importance_cap)
        is_cut_ST = importance_ST >= settings.importance_cap
        metrics["rollout/importance/mean"] = (weight_ST * importance_ST).sum() / total_weight
        metrics["rollout/importance/truncated_frac"] = (weight_ST * is_cut_ST).sum() / total_weight

    policy = _policy_loss(
        settings, logprob_ST, old_logprob_ST, credit_S, mask_ST, weight_ST, trajectory_S, importance_ST
    )
    metrics |= {
        "actor/pg_loss": policy.loss,
        "actor/pg_clipfrac": policy.clip_fraction / total_weight,
        "actor/pg_clipfrac_lower": policy.dual_clip_fraction / total_weight,
        "actor/clip_ratio/low": policy.clip_fraction_low / total_weight,
        "actor/clip_ratio/high": policy.clip_fraction_high / total_weight,
        "actor/ppo_kl": policy.ppo_kl / total_weight,
    }
    entropy = (weight_ST * torch.where(mask_ST, entropy_ST, 0.0)).sum()
    metrics["actor/entropy"] = entropy / total_weight
    loss = policy.loss
    if settings.entropy_coef:
        loss = loss - settings.entropy_coef * entropy
    if settings.kl_coef:
        if ref_logprob_ST is None:
            raise ValueError(f"algo.loss.kl_coef is {settings.kl_coef}, but the batch has no reference log-probs")
        kl_ST = kl_estimate(
            torch.where(mask_ST, logprob_ST, 0.0),
            torch.where(mask_ST, ref_logprob_ST, 0.0),
            settings.kl_estimator,
            clamp=settings.kl_clamp,
        )
        kl = (weight_ST * kl_ST).sum()
        metrics["actor/kl_loss"] = kl / total_weight
        loss = loss + settings.kl_coef * kl
    return LossTerms(loss, {name: value.detach() for name, value in metrics.items()})


def _shaped_reward(overlong: schema.NoOverlong | schema.SoftOverlong, table: StepTable) -> tuple[Tensor, Metrics]:
    match overlong:
        case schema.NoOverlong():
            return table.reward_N, {}
        case schema.SoftOverlong(limit=limit, buffer=buffer, penalty=penalty):
            penalty_N = soft_overlong_penalty(table.tokens_of_trajectory, limit=limit, buffer=buffer, penalty=penalty)
            return table.reward_N + penalty_N, {"dapo/overlong_frac": mean((penalty_N < 0).float())}
        case _:
            assert_never(overlong)


def _credit(settings: schema.Credit, advantage_S: Tensor, table: StepTable) -> tuple[CreditParts, Metrics]:
    match settings:
        case schema.NoCredit():
            return CreditParts(table.entropy_S, advantage_S, None, None, advantage_S), {}
        case _ if not table.entropy_S.isfinite().all():  # the update will be left out and counted
            return CreditParts(table.entropy_S, advantage_S, None, None, torch.full_like(advantage_S, math.nan)), {}
        case schema.EmpgCredit(zeta=zeta, order=order, scaled=scaled, shift=shift, center=center):
            found = ordered_credit(
                advantage_S,
                _modulation(settings, table),
                zeta=zeta,
                order=order,
                scaled=scaled,
                shift=shift,
                center=center,
            )
            parts = found.parts
            metrics = modulation_metrics(advantage_S, parts, found.uncentred_S, found.credit_S, table.next_S)
            return CreditParts(table.entropy_S, advantage_S, parts.weight_S, parts.clarity_S, found.credit_S), metrics
        case schema.CustomCredit():
            credit_S = brought_credit(settings, advantage_S, table.entropy_S, table.next_S)
            return CreditParts(table.entropy_S, advantage_S, None, None, credit_S), {}
        case _:
            assert_never(settings)


def _modulation(settings: schema.EmpgCredit, table: StepTable) -> Modulation:
    return controlled_modulation(
        _entropy01(settings, table),
        table.next_S,
        settings.control,
        trajectory_S=table.trajectory_S,
        is_valid_S=table.is_valid_S,
        seed=batch_seed(table.tokens_S, table.trajectory_S),
        k=settings.k,
        k_future=settings.k_future,
    )


def _entropy01(settings: schema.EmpgCredit, table: StepTable) -> Tensor:
    entropy_S = table.first_entropy_S if settings.control == "first_token" else table.entropy_S
    match settings.normalise:
        case "minmax":
            return normalise_entropy(entropy_S)
        case "quantile":
            return normalise_between_quantiles(entropy_S, settings.tail or 0.0)
        case "anchor":
            return normalise_within_anchors(entropy_S, anchor_groups(table.anchor_S, table.group_of_step))
        case _:
            assert_never(settings.normalise)


def _policy_loss(
    settings: schema.Loss,
    logprob_ST: Tensor,
    old_logprob_ST: Tensor,
    credit_S: Tensor,
    mask_ST: Tensor,
    weight_ST: Tensor,
    trajectory_S: Tensor | None,
    importance_ST: Tensor | None,
) -> PolicyLoss:
    match settings:
        case schema.ClipLoss(clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip):
            return clipped_surrogate(
                logprob_ST,
                old_logprob_ST,
                credit_S,
                mask_ST,
                clip_low=clip_low,
                clip_high=clip_high,
                dual_clip=dual_clip,
                weight_ST=weight_ST,
                importance_ST=importance_ST,
            )
        case schema.SequenceLoss(clip_low=clip_low, clip_high=clip_high, sequence=sequence):
            if sequence == "trajectory" and trajectory_S is None:
                raise ValueError("algo.loss.sequence=trajectory needs trajectory_S beside the rows of a micro-batch")
            return sequence_surrogate(
                logprob_ST,
                old_logprob_ST,
                credit_S,
                mask_ST,
                clip_low=clip_low,
                clip_high=clip_high,
                sequence_S=trajectory_S if sequence == "trajectory" else None,
                length_normalised=settings.length_normalised,
                weight_ST=weight_ST,
                importance_ST=importance_ST,
            )
        case schema.CispoLoss(clip_low=clip_low, clip_high=clip_high):
            return clipped_importance(
                logprob_ST,
                old_logprob_ST,
                credit_S,
                mask_ST,
                clip_low=clip_low,
                clip_high=clip_high,
                weight_ST=weight_ST,
                importance_ST=importance_ST,
            )
        case _:
            assert_never(settings)
