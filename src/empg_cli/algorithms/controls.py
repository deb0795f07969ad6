"""Controls of EMPG (arXiv 2509.09265): its credit with one part taken away or replaced, to see which part does what.

None of this is an algorithm to train with. A control changes what a step is given by entropy, g(H_t) and f(H_t); an
order, which part of the advantage g scales; `scaled`, on which steps. The mean of g stays 1 over the batch, and over
the steps of a sign where only these are scaled.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from empg_cli.algorithms.empg import Modulation, apply_modulation, clarity, gradient_scale, modulation, of_next
from empg_cli.algorithms.groups import group_index, group_mean
from empg_cli.config.algo import Control, Order, Scaled


def controlled_modulation(
    entropy01_S: Tensor,
    next_S: Tensor,
    control: Control,
    *,
    trajectory_S: Tensor,
    is_valid_S: Tensor,
    seed: int,
    k: float = 1.0,
    k_future: float = 1.0,
) -> Modulation:
    """g and f under a control: dealt out anew to the steps, or replaced by their mean over some.

    Args:
        entropy01_S: float [S], normalised; for control=first_token of the entropies of first tokens.
        is_valid_S: bool [S], well formed and accepted by the environment.
        seed: of the permutations, and of the order of equal entropies.
    """
    match control:
        case "none" | "first_token":
            return modulation(entropy01_S, next_S, k=k, k_future=k_future)
        case _:
            weight_S, clarity_S = gradient_scale(entropy01_S, k), clarity(entropy01_S, k_future)
    match control:
        case "inverted":
            order_S = mirrored(entropy01_S, seed)
            weight_S, clarity_S = weight_S[order_S], clarity_S[order_S]
        case "permuted":
            order_S = permutation(torch.zeros_like(next_S), seed)
            weight_S, clarity_S = weight_S[order_S], clarity_S[order_S]
        case "permuted_within":
            order_S = permutation(trajectory_S, seed)
            weight_S, clarity_S = weight_S[order_S], clarity_S[order_S]
        case "trajectory_mean":
            weight_S, clarity_S = means_of(weight_S, trajectory_S), means_of(clarity_S, trajectory_S)
        case "valid_only":
            weight_S, clarity_S = means_of(weight_S, is_valid_S), means_of(clarity_S, is_valid_S)
        case _:
            assert_never(control)
    return Modulation(entropy01_S, weight_S, of_next(clarity_S, next_S))


class OrderedCredit(NamedTuple):
    credit_S: Tensor
    uncentred_S: Tensor
    """Before its mean was subtracted."""
    parts: Modulation
    """As they were used: g is 1 on the steps that `scaled` leaves alone."""


def ordered_credit(
    advantage_S: Tensor,
    parts: Modulation,
    *,
    zeta: float,
    order: Order,
    scaled: Scaled,
    shift: float = 0.0,
    center: bool = True,
) -> OrderedCredit:
    """The credit of every step: g scales a part of the advantage, the rest of it stays as it is, B = zeta f(H_{t+1}) is
    added, and the mean of all this is subtracted (`center` = False leaves it in).

    scale_then_center: A g + B, the paper's (Eq. 4 and 9).
    center_then_scale: (A - mean A) g + mean A + B.
    bias_only: mean(A) g + (A - mean A) + B: what the mean alone brings about.

    As mean g = 1, the last two differ from A - mean A + B - mean B, centring and bonus without any g, by parts that add
    up to the first one's difference.

    Args:
        scaled: the sign of A on the steps that g scales, with mean 1 over these; on the others it is 1.
        shift: added to A before it is scaled, and not to the A whose sign counts. After centring shift (g - 1) is left
            of it: the mean's part, made larger or smaller without touching anything else.
    """
    parts = replace(parts, weight_S=_on_the_sign(advantage_S, parts.weight_S, scaled))
    advantage_S = advantage_S + shift if shift else advantage_S
    mean = advantage_S.mean()
    match order:
        case "scale_then_center":
            uncentred_S = apply_modulation(advantage_S, parts, zeta=zeta, center=False)
        case "center_then_scale":
            uncentred_S = apply_modulation(advantage_S - mean, parts, zeta=zeta, center=False) + mean
        case "bias_only":
            scaled_S = apply_modulation(mean.expand_as(advantage_S), parts, zeta=zeta, center=False)
            uncentred_S = scaled_S + (advantage_S - mean)
        case _:
            assert_never(order)
    credit_S = uncentred_S - uncentred_S.mean() if center else uncentred_S
    return OrderedCredit(credit_S, uncentred_S, parts)


def batch_seed(tokens_S: Tensor, trajectory_S: Tensor) -> int:
    """A seed made of the lengths of a batch's responses: another batch has other permutations, the same batch the same
    ones, whenever and on however many ranks it is computed."""
    return zlib.crc32(torch.stack([tokens_S, trajectory_S]).cpu().numpy().tobytes())


def permutation(group_S: Tensor, seed: int) -> Tensor:
    """long [S]: the rows in random order, each group's among themselves."""
    shuffled_S = torch.randperm(len(group_S), generator=torch.Generator().manual_seed(seed)).to(group_S.device)
    drawn_S = shuffled_S[torch.argsort(group_S[shuffled_S], stable=True)]  # group after group, random within
    return torch.empty_like(drawn_S).scatter_(0, torch.argsort(group_S, stable=True), drawn_S)


def mirrored(value_S: Tensor, seed: int) -> Tensor:
    """long [S]: for each step the row of its mirror image, the least value's for the greatest and so on; a permutation,
    with equal values in random order."""
    shuffled_S = permutation(torch.zeros_like(value_S, dtype=torch.long), seed)
    rising_S = shuffled_S[torch.argsort(value_S[shuffled_S], stable=True)]
    return torch.empty_like(rising_S).scatter_(0, rising_S, rising_S.flip(0))


def means_of(value_S: Tensor, group_S: Tensor) -> Tensor:
    """float [S]: the mean of each step's group."""
    index_S, num_groups = group_index(group_S)
    return group_mean(value_S, index_S, num_groups)[index_S]


def _on_the_sign(advantage_S: Tensor, weight_S: Tensor, scaled: Scaled) -> Tensor:
    """g where A has the sign, over its own mean there, so that these steps keep mean weight 1; 1 elsewhere."""
    match scaled:
        case "all":
            return weight_S
        case "positive":
            is_scaled_S = advantage_S > 0
        case "negative":
            is_scaled_S = advantage_S < 0
        case _:
            assert_never(scaled)
    return torch.where(is_scaled_S, weight_S / weight_S[is_scaled_S].mean(), 1.0)
