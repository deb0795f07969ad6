"""The one place where settings choose formulas: rewards and entropies to credit, log-probs to loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from empg_cli.algorithms.advantages import group_relative, group_relative_over_steps
from empg_cli.algorithms.empg import apply_modulation, modulation, step_entropy
from empg_cli.algorithms.filtering import soft_overlong_penalty, uniform_fraction
from empg_cli.algorithms.kl import kl_estimate
from empg_cli.algorithms.losses import clipped_surrogate
from empg_cli.config.schema import Advantage, Algo, EmpgCredit, Loss, NoCredit, NoOverlong, SoftOverlong
from empg_cli.types import Batch

Metrics = dict[str, float]


def compute_credit(algo: Algo, batch: Batch) -> tuple[Tensor, Metrics]:
    """The credit of every step, float [S], and what to log about it.

    reward (less the overlong penalty) -> advantage of each trajectory -> spread to its steps -> EMPG.

    `batch` must be the whole rollout batch of one update, over all ranks: every statistic is over what it holds.
    The overlong penalty is applied here and nowhere else; `batch.reward_N` stays as the environment gave it.
    """
    entropy_S = step_entropy(batch.entropy_ST, batch.mask_ST)
    reward_N, metrics = _shaped_reward(algo.overlong, batch)
    metrics |= _summary("critic/rewards", reward_N) | {
        "group/zero_std_frac": uniform_fraction(batch.reward_N, batch.group_N)
    }
    advantage_S = _step_advantage(algo.advantage, reward_N, batch)
    metrics |= _entropy_metrics(entropy_S)
    match algo.credit:
        case NoCredit():
            credit_S = advantage_S
        case EmpgCredit(k=k, k_future=k_future, zeta=zeta, center=center):
            parts = modulation(entropy_S, batch.next_S, k=k, k_future=k_future)
            credit_S = apply_modulation(advantage_S, parts, zeta=zeta, center=center)
            metrics |= _summary("empg/weight", parts.weight_S)
            has_next_S = batch.next_S >= 0
            metrics["empg/future_clarity/mean"] = _mean(parts.clarity_S[has_next_S])
            metrics["empg/advantage_shift"] = _mean((credit_S - advantage_S).abs())
        case _:
            assert_never(algo.credit)
    return credit_S, metrics | _summary("critic/advantages", credit_S)


@dataclass(frozen=True, slots=True)
class LossTerms:
    loss: Tensor
    """Scalar with gradient; call backward on it."""
    metrics: dict[str, Tensor]
    """Detached scalars, weighted sums like the loss: add them up over micro-batches and ranks."""


def compute_loss(
    settings: Loss,
    *,
    logprob_ST: Tensor,
    entropy_ST: Tensor,
    old_logprob_ST: Tensor,
    ref_logprob_ST: Tensor | None,
    credit_S: Tensor,
    mask_ST: Tensor,
    weight_ST: Tensor,
) -> LossTerms:
    """policy loss + kl_coef * KL(policy, reference) - entropy_coef * entropy, for the rows given.

    Args:
        weight_ST: these rows of `losses.token_weights`, which was computed over the whole optimiser step.
        ref_logprob_ST: None when kl_coef = 0.
    """
    policy = clipped_surrogate(
        logprob_ST,
        old_logprob_ST,
        credit_S,
        mask_ST,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        dual_clip=settings.dual_clip,
        weight_ST=weight_ST,
    )
    metrics = {
        "actor/pg_loss": policy.loss,
        "actor/pg_clipfrac": policy.clip_fraction,
        "actor/pg_clipfrac_lower": policy.dual_clip_fraction,
        "actor/clip_ratio/low": policy.clip_fraction_low,
        "actor/clip_ratio/high": policy.clip_fraction_high,
        "actor/ppo_kl": policy.ppo_kl,
    }
    entropy = (weight_ST * torch.where(mask_ST, entropy_ST, 0.0)).sum()
    metrics["actor/entropy"] = entropy
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
        metrics["actor/kl_loss"] = kl
        loss = loss + settings.kl_coef * kl
    return LossTerms(loss, {name: value.detach() for name, value in metrics.items()})


def _shaped_reward(overlong: NoOverlong | SoftOverlong, batch: Batch) -> tuple[Tensor, Metrics]:
    match overlong:
        case NoOverlong():
            return batch.reward_N, {}
        case SoftOverlong(limit=limit, buffer=buffer, penalty=penalty):
            tokens_S = batch.mask_ST.sum(dim=1)
            tokens_N = tokens_S.new_zeros(batch.num_trajectories).index_add_(0, batch.trajectory_S, tokens_S)
            penalty_N = soft_overlong_penalty(tokens_N, limit=limit, buffer=buffer, penalty=penalty)
            return batch.reward_N + penalty_N, {"dapo/overlong_frac": _mean((penalty_N < 0).float())}
        case _:
            assert_never(overlong)


def _step_advantage(settings: Advantage, reward_N: Tensor, batch: Batch) -> Tensor:
    match settings.statistics:
        case "trajectory":
            advantage_N = group_relative(
                reward_N, batch.group_N, scale_by_std=settings.scale_by_std, unbiased=settings.unbiased_std
            )
            return advantage_N[batch.trajectory_S]
        case "step":
            return group_relative_over_steps(
                reward_N[batch.trajectory_S],
                batch.group_N[batch.trajectory_S],
                scale_by_std=settings.scale_by_std,
                unbiased=settings.unbiased_std,
            )
        case _:
            assert_never(settings.statistics)


def _entropy_metrics(entropy_S: Tensor) -> Metrics:
    if entropy_S.numel() == 0:
        return {}
    p10, p90 = torch.quantile(entropy_S.float(), torch.tensor([0.1, 0.9], device=entropy_S.device)).tolist()
    return {"empg/step_entropy/mean": _mean(entropy_S), "empg/step_entropy/p10": p10, "empg/step_entropy/p90": p90}


def _summary(name: str, values: Tensor) -> Metrics:
    if values.numel() == 0:
        return {}
    return {f"{name}/mean": _mean(values), f"{name}/max": float(values.max()), f"{name}/min": float(values.min())}


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0
