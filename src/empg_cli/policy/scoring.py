"""Log-prob and entropy of chosen tokens in one chunked pass over the vocabulary.

The logits of all tokens never exist at once: the forward pass keeps one number per token (the log-normaliser) and the
backward pass makes each chunk's logits again. Peak extra memory is one `[chunk, V]` fp32 buffer and a temporary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _LogprobEntropy(torch.autograd.Function):
    """With z = h W^T / temperature and p = softmax(z):

    logprob = z_target - logsumexp(z)          d logprob / dz = onehot - p
    entropy = logsumexp(z) - sum_v p_v z_v     d entropy / dz = -p (log p + entropy)
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        num_tokens = hidden_TD.shape[0]
        logprob_T = torch.empty(num_tokens, dtype=torch.float32, device=hidden_TD.device)
        entropy_T, logsumexp_T = torch.empty_like(logprob_T), torch.empty_like(logprob_T)
        for start in range(0, num_tokens, chunk):
            part = slice(start, start + chunk)
            logit_TV = _logits(hidden_TD[part], weight_VD, temperature)
            logsumexp_T[part] = torch.logsumexp(logit_TV, -1)
            logprob_T[part] = logit_TV.gather(1, target_T[part, None])[:, 0] - logsumexp_T[part]
            expected_logit_T = torch.linalg.vecdot(torch.softmax(logit_TV, -1), logit_TV)
            entropy_T[part] = logsumexp_T[part] - expected_logit_T
        ctx.save_for_backward(hidden_TD, weight_VD, target_T, logsumexp_T, entropy_T)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        return logprob_T, entropy_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_logprob_T, grad_entropy_T = grads
        hidden_TD, weight_VD, target_T, logsumexp_T, entropy_T = ctx.saved_tensors
        grad_hidden_TD = torch.zeros_like(hidden_TD)
        grad_weight_VD = torch.zeros(weight_VD.shape, dtype=torch.float32, device=weight_VD.device)
        for start in range(0, hidden_TD.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logp_TV = _logits(hidden_TD[part], weight_VD, ctx.temperature).sub_(logsumexp_T[part, None])
            prob_TV = logp_TV.exp()
            grad_TV = torch.zeros_like(logp_TV)
            if grad_entropy_T is not None:
                grad_TV -= prob_TV * (logp_TV + entropy_T[part, None]) * grad_entropy_T[part, None]
            if grad_logprob_T is not None:
                grad_TV -= prob_TV * grad_logprob_T[part, None]
                grad_TV.scatter_add_(1, target_T[part, None], grad_logprob_T[part, None])
            grad_TV = (grad_TV / ctx.temperature).to(hidden_TD.dtype)
            grad_hidden_TD[part] = grad_TV @ weight_VD
            grad_weight_VD += (grad_TV.t() @ hidden_TD[part]).float()
        return grad_hidden_TD, grad_weight_VD.to(weight_VD.dtype), None, None, None


def _logits(hidden_TD: Tensor, weight_VD: Tensor, temperature: float) -> Tensor:
    logit_TV = (hidden_TD @ weight_VD.t()).float()
    return logit_TV if temperature == 1.0 else logit_TV / temperature


def logprob_and_entropy(
    hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, *, temperature: float = 1.0, chunk: int = 1024
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and Shannon entropy (nats) of its distribution, both differentiable.

    Args:
        hidden_TD: last hidden states, only of the positions whose next token is asked for.
        weight_VD: output embedding.
        target_T: long, the tokens that follow.
        temperature: the sampling temperature; logits are divided by it, as they were when the tokens were drawn.
        chunk: tokens whose logits exist at the same time.
    """
    logprob_T, entropy_T = _LogprobEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_TD, weight_VD, target_T, temperature, chunk
    )
    return logprob_T, entropy_T
