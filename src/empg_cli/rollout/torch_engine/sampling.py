"""Drawing a token from logits with a given random number."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(
    logit_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution; temperature 0 takes the most likely one.

    With z = logit - max and w = exp z: p = w / sum w, log p = z - log sum w, entropy = log sum w - sum p z. Passes over
    a long vocabulary wait for memory, so there are few, and the logits' own memory is used again. (torch's log_softmax
    is off by up to 4e-5 on a CPU with 150,000 words in float32, and an entropy of its results by 2e-4.)

    Args:
        logit_BV: overwritten.
        uniform_B: numbers in [0, 1), one per row.
        top_p: draw only from the most likely tokens that together have at least this probability.

    Returns:
        token_B (long), its log-probability and the entropy (nats) of the distribution it was drawn from; with `top_p`
        below 1 that is the cut and renormalised one, with temperature 0 the one at temperature 1.
    """
    if temperature not in (0, 1):
        logit_BV.div_(temperature)
    logit_BV.sub_(logit_BV.amax(-1, keepdim=True))
    weight_BV = logit_BV.exp()
    if temperature != 0 and top_p < 1:
        weight_BV.masked_fill_(~nucleus(weight_BV / weight_BV.sum(-1, keepdim=True), top_p), 0)
    total_B = weight_BV.sum(-1)
    log_total_B = total_B.log()
    entropy_B = log_total_B - torch.linalg.vecdot(weight_BV, logit_BV) / total_B
    token_B = logit_BV.argmax(-1) if temperature == 0 else _drawn(weight_BV, uniform_B)
    return token_B, logit_BV.gather(1, token_B[:, None])[:, 0] - log_total_B, entropy_B


def _drawn(weight_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token in whose part of the cumulative weight the number falls. Overwrites the weights."""
    cumulative_BV = weight_BV.cumsum_(-1)
    total_B = cumulative_BV[:, -1]  # staying below it keeps every draw on a possible token
    threshold_B = torch.minimum(uniform_B.to(total_B.dtype) * total_B, torch.nextafter(total_B, total_B * 0))
    token_B = torch.searchsorted(cumulative_BV, threshold_B[:, None], right=True)[:, 0]
    return token_B.clamp_(max=weight_BV.shape[1] - 1)  # NaN lies behind every token; its log-prob tells that it is one


def nucleus(prob_BV: Tensor, top_p: float) -> Tensor:
    """The smallest set of most likely tokens whose probabilities sum to at least `top_p` (arXiv 1904.09751), as a mask.
    Of equally likely tokens the lower ids come first."""
    sorted_BV, order_BV = prob_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    return torch.zeros_like(prob_BV, dtype=torch.bool).scatter_(1, order_BV, before_BV < top_p)
