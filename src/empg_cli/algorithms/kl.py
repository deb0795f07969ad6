"""Per-token estimators of KL(policy, reference) from samples of the policy (J. Schulman, 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]

_MAX_LOG_RATIO = 20.0
"""Where the exponent of a clamped k3 stops growing, so that an infinity cannot turn into NaN in backward."""


def kl_estimate(
    logprob: Tensor, ref_logprob: Tensor, kind: KlEstimator = "k3", *, clamp: float | None = None
) -> Tensor:
    """KL(policy, reference) of each token; any shape. With d = log pi_ref - log pi:

    k1 = -d                 unbiased, large variance, may be negative
    k2 = d^2 / 2            biased, never negative
    k3 = exp(d) - d - 1     unbiased, never negative; GRPO's and EMPG's, `low_var_kl` in verl

    These are estimates of the value. Their gradients differ: used as a loss, k1 has expected gradient zero, and k2 has
    that of the reverse KL.

    Args:
        clamp: bound the estimate to [-clamp, clamp]; beyond it the gradient is zero. verl clamps k3 at 10.
    """
    difference = ref_logprob - logprob
    match kind:
        case "k1":
            estimate = -difference
        case "k2":
            estimate = difference.square() / 2
        case "k3":
            if clamp is not None:
                difference = difference.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
            estimate = torch.exp(difference) - difference - 1
        case _:
            raise ValueError(f"unknown KL estimator {kind!r}: choose k1, k2 or k3")
    return estimate if clamp is None else estimate.clamp(-clamp, clamp)
