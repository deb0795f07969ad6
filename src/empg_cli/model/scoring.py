"""Log-prob and entropy of chosen tokens in one chunked pass over the vocabulary.

The logits of all tokens never exist at once: the forward pass keeps two numbers per token (log-normaliser and entropy)
and the backward pass makes each chunk's logits again. Beyond the gradients it needs two `[chunk, V]` fp32 buffers.
Small logits are kept instead: a short vocabulary and a short batch cost little memory and save that second product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 2**28
"""Size of the logits of a chunk at most."""
CPU_CHUNK = 256
"""Tokens in a chunk on a CPU at most: more fall out of its cache, fewer make the matrix products slow."""
KEEP_BYTES = 2**25
"""Logits of all tokens up to this size are kept for the backward pass."""


@dataclass(frozen=True, slots=True)
class _Form:
    """What happens to the product of hidden states and output embedding."""

    temperature: float
    scale: float
    softcap: float | None

    def cap_slope(self, logit_TV: Tensor) -> Tensor:
        """Derivative of the soft cap, from the capped logits. Overwrites them."""
        assert self.softcap is not None
        return logit_TV.mul_(self.temperature / self.softcap).square_().neg_().add_(1)


class _LogprobEntropy(torch.autograd.Function):
    """With u = scale * (h W^T + b), z = u / temperature and p = softmax(z):

    logprob = z_target - logsumexp(z)          d logprob / dz = onehot - p
    entropy = logsumexp(z) - sum_v p_v z_v     d entropy / dz = -p (log p + entropy)

    With a soft cap c, z = c tanh(u / c) / temperature and dz / du = (1 - (z temperature / c)^2) / temperature.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_T: Tensor,
        form: _Form,
        chunk: int,
        keeps: bool,
    ) -> tuple[Tensor, Tensor]:
        logprob_T = torch.empty(len(hidden_TD), dtype=torch.float32, device=hidden_TD.device)
        entropy_T, logsumexp_T = torch.empty_like(logprob_T), torch.empty_like(logprob_T)
        kept: list[Tensor] = []
        for start in range(0, len(hidden_TD), chunk):
            part = slice(start, start + chunk)
            logit_TV = _logits(hidden_TD[part], weight_VD, bias_V, form)
            max_T = logit_TV.amax(-1)
            exp_TV = logit_TV.sub_(max_T[:, None]).exp()
            sum_T = exp_TV.sum(-1)
            log_sum_T = sum_T.log()
            logprob_T[part] = logit_TV.gather(1, target_T[part, None])[:, 0] - log_sum_T
            entropy_T[part] = log_sum_T - torch.linalg.vecdot(exp_TV, logit_TV) / sum_T
            logsumexp_T[part] = max_T + log_sum_T
            if keeps:
                kept.append(logit_TV.sub_(log_sum_T[:, None]))
            del logit_TV, exp_TV  # before the next chunk's
        ctx.save_for_backward(hidden_TD, weight_VD, bias_V, target_T, logsumexp_T, entropy_T)
        ctx.form, ctx.chunk, ctx.kept_logp = form, chunk, kept
        ctx.set_materialize_grads(False)
        return logprob_T, entropy_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_TD, weight_VD, bias_V, target_T, logsumexp_T, entropy_T = ctx.saved_tensors
        form: _Form = ctx.form
        # dividing these by the temperature, and so on, spares a pass over the vocabulary
        divisor = form.temperature / form.scale
        grad_logprob_T, grad_entropy_T = (None if grad is None else grad / divisor for grad in grads)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden_TD = torch.empty_like(hidden_TD) if needs_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needs_bias else None
        for number, start in enumerate(range(0, len(hidden_TD), ctx.chunk)):
            part = slice(start, start + ctx.chunk)
            if ctx.kept_logp:
                logp_TV = ctx.kept_logp[number].clone()
            else:
                logp_TV = _logits(hidden_TD[part], weight_VD, bias_V, form).sub_(logsumexp_T[part, None])
            cap_slope_TV = None if form.softcap is None else form.cap_slope(logp_TV + logsumexp_T[part, None])
            grad_TV = _logit_gradient(
                logp_TV,
                target_T[part],
                entropy_T[part],
                None if grad_logprob_T is None else grad_logprob_T[part],
                None if grad_entropy_T is None else grad_entropy_T[part],
            )
            if cap_slope_TV is not None:
                grad_TV.mul_(cap_slope_TV)
            if grad_bias_V is not None:
                grad_bias_V += grad_TV.sum(0)
            grad_TV = grad_TV.to(hidden_TD.dtype)
            if grad_hidden_TD is not None:
                grad_hidden_TD[part] = grad_TV @ weight_VD
            if grad_weight_VD is not None:
                _add_product(grad_weight_VD, grad_TV.t(), hidden_TD[part])
            del logp_TV, grad_TV, cap_slope_TV
        if grad_weight_VD is not None:
            grad_weight_VD = grad_weight_VD.to(weight_VD.dtype)
        if grad_bias_V is not None:
            grad_bias_V = grad_bias_V.to(bias_V.dtype)
        return grad_hidden_TD, grad_weight_VD, grad_bias_V, None, None, None, None


def _logit_gradient(
    logp_TV: Tensor, target_T: Tensor, entropy_T: Tensor, grad_logprob_T: Tensor | None, grad_entropy_T: Tensor | None
) -> Tensor:
    """Gradient with respect to z. Overwrites `logp_TV`."""
    grad_TV = logp_TV.exp()
    if grad_entropy_T is None:
        assert grad_logprob_T is not None, "backward is called for one of the outputs at least"
        grad_TV.mul_(-grad_logprob_T[:, None])
    else:
        slope_TV = logp_TV.add_(entropy_T[:, None]).mul_(-grad_entropy_T[:, None])
        grad_TV.mul_(slope_TV if grad_logprob_T is None else slope_TV.sub_(grad_logprob_T[:, None]))
    if grad_logprob_T is not None:
        grad_TV.scatter_add_(1, target_T[:, None], grad_logprob_T[:, None])
    return grad_TV


def _logits(hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, form: _Form) -> Tensor:
    """z in a new fp32 tensor [T, V]."""
    logit_TV = logits(hidden_TD, weight_VD, bias_V=bias_V, scale=form.scale, softcap=form.softcap)
    return logit_TV if form.temperature == 1.0 else logit_TV.div_(form.temperature)


def logits(
    hidden_TD: Tensor, weight_VD: Tensor, *, bias_V: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """softcap * tanh(u / softcap) with u = scale * (h W^T + b), or u itself, in a new fp32 tensor [T, V]."""
    product_TV = hidden_TD @ weight_VD.t()
    logit_TV = (product_TV if bias_V is None else product_TV.add_(bias_V)).float()
    if scale != 1.0:
        logit_TV = logit_TV.mul_(scale)
    return logit_TV if softcap is None else logit_TV.div_(softcap).tanh_().mul_(softcap)


def _add_product(total_VD: Tensor, left_VT: Tensor, right_TD: Tensor) -> None:
    """total += left @ right; in one kernel, without a second [V, D], where the types agree."""
    if total_VD.dtype == left_VT.dtype:
        total_VD.addmm_(left_VT, right_TD)
    else:
        total_VD += left_VT @ right_TD


def logprob_and_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    bias_V: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and Shannon entropy (nats) of its distribution, both differentiable.

    Args:
        hidden_TD: last hidden states, only of the positions whose next token is asked for.
        weight_VD: output embedding.
        target_T: long, the tokens that follow.
        temperature: the sampling temperature; logits are divided by it, as they were when the tokens were drawn.
        chunk: tokens whose logits exist at the same time; None chooses by memory, see CHUNK_BYTES and CPU_CHUNK.
        bias_V, scale, softcap: what else the model's head does, see `model.head.Head`.
    """
    vocabulary_bytes = 4 * len(weight_VD)
    if chunk is None:
        chunk = max(1, CHUNK_BYTES // vocabulary_bytes)
        if hidden_TD.device.type == "cpu":
            chunk = min(chunk, CPU_CHUNK)
    has_backward = torch.is_grad_enabled() and (hidden_TD.requires_grad or weight_VD.requires_grad)
    keeps = has_backward and len(hidden_TD) * vocabulary_bytes <= KEEP_BYTES
    logprob_T, entropy_T = _LogprobEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_TD, weight_VD, bias_V, target_T, _Form(temperature, scale, softcap), chunk, keeps
    )
    return logprob_T, entropy_T
