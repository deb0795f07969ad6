"""Proposition 1 by hand, against autograd, and over random distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.algorithms.logit_gradient import logit_gradient


def test_by_hand():
    # p = (1/2, 1/4, 1/4): sum p^2 = 3/8, so 1 - exp(-H_2) = 5/8 and H_2 = log(8/3).
    # ||e_a - p||^2 = 1 - 2 p_a + 3/8: 3/8 for a = 0, 7/8 for the others; mean 1/2 * 3/8 + 1/2 * 7/8 = 5/8.
    logits = torch.tensor([[0.5, 0.25, 0.25]] * 2).log()
    found = logit_gradient(logits, torch.tensor([0, 2]))
    assert found.entropy_T.tolist() == pytest.approx([1.5 * math.log(2)] * 2)
    assert found.renyi2_T.tolist() == pytest.approx([math.log(8 / 3)] * 2)
    assert found.predicted_T.tolist() == pytest.approx([0.625] * 2)
    assert found.exact_T.tolist() == pytest.approx([0.625] * 2)
    assert found.sampled_T.tolist() == pytest.approx([0.375, 0.875])


def test_a_sure_token_has_no_gradient_and_a_uniform_one_the_largest():
    sure, uniform = torch.tensor([[200.0, 0.0, 0.0, 0.0]]), torch.zeros(1, 4)
    assert logit_gradient(sure, torch.tensor([0])).predicted_T.item() == pytest.approx(0.0, abs=1e-12)
    assert logit_gradient(uniform, torch.tensor([1])).predicted_T.item() == pytest.approx(1 - 1 / 4)


def test_the_norm_is_that_of_autograd():
    torch.manual_seed(0)
    logits = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 3, 10, 3, 7])
    logprob_T = torch.log_softmax(logits, -1)[torch.arange(5), tokens]
    (gradient_TV,) = torch.autograd.grad(logprob_T.sum(), logits)
    torch.testing.assert_close(logit_gradient(logits.detach(), tokens).sampled_T, gradient_TV.square().sum(-1))


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=40))
def test_both_sides_agree_and_shannon_is_never_below_renyi(logits):
    found = logit_gradient(torch.tensor([logits], dtype=torch.float64), torch.tensor([0]))
    assert found.exact_T.item() == pytest.approx(found.predicted_T.item(), abs=1e-12)
    assert found.entropy_T.item() >= found.renyi2_T.item() - 1e-12


def test_more_shannon_entropy_may_mean_a_smaller_gradient():
    # The counter-example of the module's docstring: the paper's "monotonically related" does not hold in general.
    coin = logit_gradient(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0]))
    tail = logit_gradient(torch.tensor([[0.74] + [0.013] * 20]).log(), torch.tensor([0]))
    assert (coin.entropy_T.item(), tail.entropy_T.item()) == pytest.approx((0.693, 1.352), abs=1e-3)
    assert tail.entropy_T > coin.entropy_T
    assert tail.predicted_T < coin.predicted_T
