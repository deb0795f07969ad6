"""Entropy-modulated policy gradients (EMPG, arXiv 2509.09265): scale a trajectory's advantage step by step.

Equation numbers are those of the revised OpenReview version (forum VSNmchfjgB). All statistics are over the steps of
the whole rollout batch, one value per step, and no gradient flows through the entropies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def step_entropy(entropy_ST: Tensor, mask_ST: Tensor) -> Tensor:
    """H_t: mean token entropy of each step, over all its sampled tokens (Eq. 3).

    Args:
        entropy_ST: Shannon entropy in nats of the distribution each token was drawn from; ignored where masked.
        mask_ST: bool, True on sampled tokens.

    Raises:
        ValueError: a step without sampled tokens has no entropy.
    """
    count_S = mask_ST.sum(dim=1)
    if (count_S == 0).any():
        row = int((count_S == 0).nonzero()[0])
        raise ValueError(f"step {row} has no sampled token, so it has no entropy; drop it before computing credit")
    return torch.where(mask_ST, entropy_ST, 0.0).sum(dim=1) / count_S


def first_entropy(entropy_ST: Tensor, mask_ST: Tensor) -> Tensor:
    """Entropy of the first sampled token of each step, a control of H_t; every step must have one."""
    if mask_ST.numel() == 0:
        return entropy_ST.new_zeros(len(mask_ST))
    first_S1 = mask_ST.long().argmax(dim=1, keepdim=True)
    return entropy_ST.gather(1, first_S1).squeeze(1)


def normalise_entropy(entropy_S: Tensor, eps: float = 1e-8) -> Tensor:
    """Min-max over the batch of steps, to [0, 1] (Eq. 8). Equal entropies all become 0."""
    entropy_S = entropy_S.detach()
    _refuse_non_finite(entropy_S)
    if entropy_S.numel() == 0:
        return entropy_S
    low, high = entropy_S.min(), entropy_S.max()
    return (entropy_S - low) / (high - low + eps)


def gradient_scale(entropy01_S: Tensor, k: float = 1.0) -> Tensor:
    """g(H): mean one over the batch, above one for confident steps (Eq. 5, 6). k = 0 gives exactly 1.

    The pseudo-code adds 1e-8 to the denominator. Some step has normalised entropy 0, so the mean is at least 1/S and
    needs no guard.
    """
    weight_S = torch.exp(-k * entropy01_S)
    return weight_S / weight_S.mean()


def future_clarity(entropy01_S: Tensor, next_S: Tensor, k_future: float = 1.0) -> Tensor:
    """f(H_{t+1}) for each step t, in [exp(-k_future), 1]; 0 on the last step of a trajectory (Eq. 7).

    Args:
        next_S: long, row of the following step of the same trajectory, -1 if none.
    """
    return of_next(clarity(entropy01_S, k_future), next_S)


def clarity(entropy01_S: Tensor, k_future: float = 1.0) -> Tensor:
    """f(H_t) of each step itself, in [exp(-k_future), 1] (Eq. 7)."""
    return torch.exp(-k_future * entropy01_S)


def of_next(value_S: Tensor, next_S: Tensor) -> Tensor:
    """The value of the following step of the same trajectory, 0 where there is none."""
    return torch.where(next_S >= 0, value_S[next_S.clamp_min(0)], torch.zeros_like(value_S))


@dataclass(frozen=True, slots=True)
class Modulation:
    """What EMPG does to each step, before any advantage is known."""

    entropy01_S: Tensor
    """Normalised entropy."""
    weight_S: Tensor
    """g(H_t), multiplies the advantage."""
    clarity_S: Tensor
    """f(H_{t+1}), added with weight zeta."""


def modulation(entropy01_S: Tensor, next_S: Tensor, *, k: float = 1.0, k_future: float = 1.0) -> Modulation:
    """g and f of every step, for `modulate` and for diagnostics."""
    if entropy01_S.shape != next_S.shape or entropy01_S.ndim != 1:
        raise ValueError(
            f"entropies and next_S must be one-dimensional and equally long, "
            f"got shapes {tuple(entropy01_S.shape)} and {tuple(next_S.shape)}"
        )
    return Modulation(entropy01_S, gradient_scale(entropy01_S, k), future_clarity(entropy01_S, next_S, k_future))


def apply_modulation(advantage_S: Tensor, parts: Modulation, *, zeta: float = 0.05, center: bool = True) -> Tensor:
    """A_t g(H_t) + zeta f(H_{t+1}) (Eq. 4), then centred over all steps (Eq. 9)."""
    if advantage_S.shape != parts.weight_S.shape:
        raise ValueError(
            f"advantage_S must have one value per step: shape {tuple(parts.weight_S.shape)}, "
            f"got {tuple(advantage_S.shape)}"
        )
    credit_S = advantage_S * parts.weight_S + zeta * parts.clarity_S
    if not center or credit_S.numel() == 0:
        return credit_S
    return credit_S - credit_S.mean()


def modulate(
    advantage_S: Tensor,
    entropy_S: Tensor,
    next_S: Tensor,
    *,
    k: float = 1.0,
    k_future: float = 1.0,
    zeta: float = 0.05,
    center: bool = True,
) -> Tensor:
    """A_t <- A_t g(H_t) + zeta f(H_{t+1}), minus its mean over the batch (Eq. 4 and 9): the credit of each step.

    With k = 0, zeta = 0 and center = False the result is `advantage_S`, bit for bit. An empty batch stays empty.

    Args:
        advantage_S: the trajectory's advantage, repeated on each of its steps.
        entropy_S: from `step_entropy`.
        next_S: long, row of the following step of the same trajectory, -1 if none.
        k, k_future: sharpness of g and f.
        zeta: weight of the bonus; the paper uses 0.05 on ALFWorld and WebShop, 0.1 on Deep Search.
        center: False leaves out Eq. 9.

    Raises:
        ValueError: an entropy is NaN or infinite, or the lengths differ.
    """
    parts = modulation(normalise_entropy(entropy_S), next_S, k=k, k_future=k_future)
    return apply_modulation(advantage_S, parts, zeta=zeta, center=center)


def _refuse_non_finite(entropy_S: Tensor) -> None:
    bad_S = ~torch.isfinite(entropy_S)
    if bad_S.any():
        row = int(bad_S.nonzero()[0])
        raise ValueError(
            f"entropy of step {row} is {entropy_S[row].item()} ({int(bad_S.sum())} of {len(entropy_S)} steps are not "
            "finite), which would spoil the min-max of the whole batch. Look for NaN in the logits of that step."
        )
