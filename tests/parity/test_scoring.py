"""The chunked scoring pass against the plain form, values and gradients."""

from __future__ import annotations

import pytest
import torch

from empg_cli.policy.scoring import logprob_and_entropy


@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_log_softmax_and_autograd(chunk: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(29, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(29, (11,), generator=generator)
    mix = torch.randn(2, 11, generator=generator, dtype=torch.float64)

    log_p = torch.log_softmax(hidden @ weight.t() / temperature, -1)
    expected = log_p.gather(1, target[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    expected_grads = torch.autograd.grad((mix[0] * expected[0] + mix[1] * expected[1]).sum(), (hidden, weight))

    actual = logprob_and_entropy(hidden, weight, target, temperature=temperature, chunk=chunk)
    grads = torch.autograd.grad((mix[0] * actual[0] + mix[1] * actual[1]).sum(), (hidden, weight))

    for got, want in zip((*actual, *grads), (*expected, *expected_grads), strict=True):
        # The pass works in float32 whatever the model's dtype, so float32 rounding is what remains.
        torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-4)


def test_one_output_alone_has_its_own_gradient() -> None:
    hidden = torch.randn(4, 6, requires_grad=True)
    weight, target = torch.randn(9, 6), torch.tensor([0, 8, 3, 3])
    logprob, _ = logprob_and_entropy(hidden, weight, target)
    (got,) = torch.autograd.grad(logprob.sum(), hidden)
    log_p = torch.log_softmax(hidden @ weight.t(), -1)
    (want,) = torch.autograd.grad(log_p.gather(1, target[:, None]).sum(), hidden)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_uniform_logits_by_hand() -> None:
    # Equal logits over 4 words: log-prob = -ln 4, entropy = ln 4.
    logprob, entropy = logprob_and_entropy(torch.zeros(2, 3), torch.ones(4, 3), torch.tensor([1, 2]))
    torch.testing.assert_close(logprob, torch.full((2,), -1.3862944))
    torch.testing.assert_close(entropy, torch.full((2,), 1.3862944))
