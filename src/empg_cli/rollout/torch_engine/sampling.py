"""Drawing a token from logits with a given random number."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(
    logit_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution; temperature 0 takes the most likely one.

    Args:
        uniform_B: numbers in [0, 1), one per row.
        top_p: draw only from the most likely tokens that together have at least this probability.

    Returns:
        token_B (long), its log-probability and the entropy (nats) of the distribution it was drawn from; with `top_p`
        below 1 that is the cut and renormalised one, with temperature 0 the one at temperature 1.
    """
    if temperature == 0:
        logprob_BV = torch.log_softmax(logit_BV, -1)
        return _described(logit_BV.argmax(-1), logprob_BV, logprob_BV.exp())
    logprob_BV = torch.log_softmax(logit_BV if temperature == 1 else logit_BV / temperature, -1)
    if top_p < 1:
        # Not -inf: a token that is cut has p log p = 0.
        lowest = torch.finfo(logprob_BV.dtype).min
        logprob_BV = torch.log_softmax(logprob_BV.masked_fill(~nucleus(logprob_BV.exp(), top_p), lowest), -1)
    prob_BV = logprob_BV.exp()
    cumulative_BV = prob_BV.cumsum(-1)
    total_B = cumulative_BV[:, -1]  # 1 but for rounding; staying below it keeps every draw on a possible token
    threshold_B = torch.minimum(uniform_B.to(total_B.dtype) * total_B, torch.nextafter(total_B, total_B * 0))
    token_B = torch.searchsorted(cumulative_BV, threshold_B[:, None], right=True)[:, 0]
    token_B.clamp_(max=logit_BV.shape[1] - 1)  # NaN lies behind every token; its log-prob tells that it is one
    return _described(token_B, logprob_BV, prob_BV)


def nucleus(prob_BV: Tensor, top_p: float) -> Tensor:
    """The smallest set of most likely tokens whose probabilities sum to at least `top_p` (arXiv 1904.09751), as a mask.
    Of equally likely tokens the lower ids come first."""
    sorted_BV, order_BV = prob_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    return torch.zeros_like(prob_BV, dtype=torch.bool).scatter_(1, order_BV, before_BV < top_p)


def _described(token_B: Tensor, logprob_BV: Tensor, prob_BV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    entropy_B = -torch.linalg.vecdot(prob_BV, logprob_BV)  # one kernel, and no third [B, V] tensor
    return token_B, logprob_BV.gather(1, token_B[:, None])[:, 0], entropy_B
