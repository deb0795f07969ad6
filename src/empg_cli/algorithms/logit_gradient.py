"""The gradient of a log-probability in the logits: what Proposition 1 of EMPG (arXiv 2509.09265, Eq. 1) is about.

For p = softmax(z), grad_z log p_a = e_a - p, so its squared norm is 1 - 2 p_a + sum_j p_j^2, and its expectation over
a ~ p is 1 - sum_j p_j^2 = 1 - exp(-H_2), with the Renyi-2 entropy H_2 = -log sum_j p_j^2.

It holds for each token and for the logits, not for the parameters. Shannon entropy H >= H_2, but H_2 does not rise with
H in general: (0.5, 0.5) has H = H_2 = 0.69, while 0.74 beside twenty times 0.013 has H = 1.35 and H_2 = 0.60.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogitGradient:
    """Float64, one value per token."""

    entropy_T: Tensor
    """Shannon, nats."""
    renyi2_T: Tensor
    predicted_T: Tensor
    """1 - exp(-H_2)."""
    exact_T: Tensor
    """sum_a p_a ||e_a - p||^2, over the whole vocabulary."""
    sampled_T: Tensor
    """||e_a - p||^2 at the token given."""


def logit_gradient(logit_TV: Tensor, token_T: Tensor) -> LogitGradient:
    """Both sides of Proposition 1 for each row of logits, each by its own definition.

    Args:
        logit_TV: divided by the sampling temperature, as the tokens were drawn.
        token_T: long, the tokens that were drawn.
    """
    logp_TV = torch.log_softmax(logit_TV.double(), -1)
    p_TV = logp_TV.exp()
    square_TV = p_TV.square()
    others_TV = square_TV.sum(-1, keepdim=True) - square_TV
    norm_TV = (1 - p_TV).square() + others_TV  # of e_a - p, for every a
    renyi2_T = -torch.logsumexp(2 * logp_TV, -1)
    return LogitGradient(
        entropy_T=-(p_TV * logp_TV).sum(-1),
        renyi2_T=renyi2_T,
        predicted_T=-torch.expm1(-renyi2_T),
        exact_T=(p_TV * norm_TV).sum(-1),
        sampled_T=norm_TV.gather(-1, token_T[:, None])[:, 0],
    )
