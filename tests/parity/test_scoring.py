"""The chunked scoring pass against the plain form, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from empg_cli.model import scoring
from empg_cli.model.head import Head
from empg_cli.model.scoring import logprob_and_entropy

KEEP, RECOMPUTE = 2**25, 0


@pytest.mark.parametrize("keep_bytes", [KEEP, RECOMPUTE])
@pytest.mark.parametrize("chunk", [1, 3, 64, None])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_log_softmax_and_autograd(
    keep_bytes: int, chunk: int | None, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "KEEP_BYTES", keep_bytes)
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


@pytest.mark.parametrize("keep_bytes", [KEEP, RECOMPUTE])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(("scale", "softcap"), [(0.25, None), (1.0, 1.5), (3.0, 0.8)])
def test_a_head_with_scale_bias_and_cap_equals_autograd(
    keep_bytes: int, has_bias: bool, scale: float, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caps below the largest logits, so that the slope of the tanh matters, at a temperature that is not one."""
    monkeypatch.setattr(scoring, "KEEP_BYTES", keep_bytes)
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(11, generator=generator, dtype=torch.float64, requires_grad=True) if has_bias else None
    target = torch.randint(11, (7,), generator=generator)
    mix = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    inputs = [hidden, weight] + ([] if bias is None else [bias])

    logit = scale * torch.nn.functional.linear(hidden, weight, bias)
    if softcap is not None:
        logit = softcap * torch.tanh(logit / softcap)
    log_p = torch.log_softmax(logit / 0.7, -1)
    expected = log_p.gather(1, target[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    expected_grads = torch.autograd.grad((mix[0] * expected[0] + mix[1] * expected[1]).sum(), inputs)

    head = Head(weight, bias, scale, softcap)
    actual = head.logprob_and_entropy(hidden, target, temperature=0.7)
    grads = torch.autograd.grad((mix[0] * actual[0] + mix[1] * actual[1]).sum(), inputs)

    for got, want in zip((*actual, *grads), (*expected, *expected_grads), strict=True):
        torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(head.logits(hidden).double(), logit, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keep_bytes", [KEEP, RECOMPUTE])
def test_the_slope_of_the_cap_by_hand(keep_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two words, u = [h, 0], cap 1: z = [tanh h, 0]. At h = atanh(0.5) the log-odds are 0.5, p = 0.6224593, and
    d logprob_0 / dh = (1 - p) (1 - 0.5^2) = 0.3775407 x 0.75 = 0.2831555."""
    monkeypatch.setattr(scoring, "KEEP_BYTES", keep_bytes)
    hidden = torch.tensor([[0.5493061443]], requires_grad=True)
    head = Head(torch.tensor([[1.0], [0.0]]), softcap=1.0)
    logprob, _ = head.logprob_and_entropy(hidden, torch.tensor([0]))
    torch.testing.assert_close(logprob.exp(), torch.tensor([0.6224593]))
    (grad,) = torch.autograd.grad(logprob.sum(), hidden)
    torch.testing.assert_close(grad, torch.tensor([[0.2831555]]))


@pytest.mark.parametrize("keep_bytes", [KEEP, RECOMPUTE])
@pytest.mark.parametrize("output", [0, 1])
def test_one_output_alone_has_its_own_gradient(keep_bytes: int, output: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the hidden states alone too: the output embedding may be frozen."""
    monkeypatch.setattr(scoring, "KEEP_BYTES", keep_bytes)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(4, 6, generator=generator, requires_grad=True)
    weight, target = torch.randn(9, 6, generator=generator), torch.tensor([0, 8, 3, 3])
    (got,) = torch.autograd.grad(logprob_and_entropy(hidden, weight, target, chunk=3)[output].sum(), hidden)
    log_p = torch.log_softmax(hidden @ weight.t(), -1)
    naive = log_p.gather(1, target[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    (want,) = torch.autograd.grad(naive[output].sum(), hidden)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("keep_bytes", [KEEP, RECOMPUTE])
def test_backward_twice_gives_the_same_gradient(keep_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the forward pass kept is not used up."""
    monkeypatch.setattr(scoring, "KEEP_BYTES", keep_bytes)
    hidden = torch.linspace(-1, 1, 12).view(4, 3).requires_grad_()
    logprob, entropy = logprob_and_entropy(hidden, torch.linspace(-2, 3, 15).view(5, 3), torch.tensor([4, 0, 1, 1]))
    loss = (logprob + 0.5 * entropy).sum()
    first, second = (torch.autograd.grad(loss, hidden, retain_graph=True)[0] for _ in range(2))
    assert first.abs().max() > 0.1
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_memory_chooses_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No product with the output embedding has more rows than the budget allows: 1,000 bytes hold 3 rows of 80."""
    monkeypatch.setattr(scoring, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(scoring, "KEEP_BYTES", RECOMPUTE)
    rows: list[int] = []
    plain = scoring._logits

    def counting(hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(hidden))
        return plain(hidden, *rest)

    monkeypatch.setattr(scoring, "_logits", counting)
    hidden = torch.ones(7, 4, requires_grad=True)
    logprob, _ = logprob_and_entropy(hidden, torch.ones(80, 4), torch.zeros(7, dtype=torch.long))
    logprob.sum().backward()
    assert rows == [3, 3, 1, 3, 3, 1]


def test_extreme_logits_stay_finite() -> None:
    """Logits 3000 apart: the likely word has log-prob 0, the other -3000, and no entropy."""
    hidden = torch.tensor([[1000.0], [1000.0]], requires_grad=True)
    logprob, entropy = logprob_and_entropy(hidden, torch.tensor([[1.0], [-2.0]]), torch.tensor([0, 1]))
    torch.testing.assert_close(logprob, torch.tensor([0.0, -3000.0]))
    torch.testing.assert_close(entropy, torch.zeros(2))
    (grad,) = torch.autograd.grad((logprob + entropy).sum(), hidden)
    # d logprob / d hidden = W_target - E[W] = 1 - 1 and -2 - 1; the entropy has no slope here.
    torch.testing.assert_close(grad, torch.tensor([[0.0], [-3.0]]))


def test_uniform_logits_by_hand() -> None:
    # Equal logits over 4 words: log-prob = -ln 4, entropy = ln 4.
    logprob, entropy = logprob_and_entropy(torch.zeros(2, 3), torch.ones(4, 3), torch.tensor([1, 2]))
    torch.testing.assert_close(logprob, torch.full((2,), -1.3862944))
    torch.testing.assert_close(entropy, torch.full((2,), 1.3862944))
