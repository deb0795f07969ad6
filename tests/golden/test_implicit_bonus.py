"""The algebra of docs/studies/why-empg.md, on batches in which every response is as frequent as it is probable.

One state, responses of two tokens out of four. First tokens have probabilities 1/2, 1/4, 1/8, 1/8; what follows them is
drawn from one of four rows. 8 x 8 copies of every pair, weighted by these, are 64 rows: sums over the batch are the
policy's expectations without any sampling noise.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from empg_cli.algorithms.controls import controlled_modulation, ordered_credit
from empg_cli.algorithms.empg import first_entropy, normalise_entropy, step_entropy
from empg_cli.algorithms.groups import group_mean
from empg_cli.config.algo import Control, Order

FIRST = [4, 2, 1, 1]  # of eighths
SECOND = [[2, 2, 2, 2], [4, 2, 1, 1], [4, 2, 1, 1], [6, 1, 1, 0]]
ROWS = [
    (first, second)
    for first, copies in enumerate(FIRST)
    for second, times in enumerate(SECOND[first])
    for _ in range(copies * times)
]


class Policy:
    def __init__(self) -> None:
        tiny = 1e-9  # a probability of 0 has no logit
        self.first = torch.tensor(FIRST, dtype=torch.double).log().requires_grad_()
        self.second = (torch.tensor(SECOND, dtype=torch.double) + tiny).log().requires_grad_()
        chosen = torch.tensor(ROWS)
        logp_1, logp_2 = self.first.log_softmax(0), self.second.log_softmax(1)
        entropy_2 = -(logp_2.exp() * logp_2).sum(1)[chosen[:, 0]]
        self.logprob_S = logp_1[chosen[:, 0]] + logp_2[chosen[:, 0], chosen[:, 1]]
        self.entropy_ST = torch.stack([-(logp_1.exp() * logp_1).sum().expand(len(chosen)), entropy_2], 1)

    def gradient(self, objective: Tensor) -> Tensor:
        parts = torch.autograd.grad(objective, [self.first, self.second], retain_graph=True)
        return torch.cat([part.flatten() for part in parts])


def gradient_of_the_credit(policy: Policy, advantage_S: Tensor, control: Control, order: Order, k: float) -> Tensor:
    """The mean over steps of credit x grad log-prob: the direction in which one policy-gradient step goes."""
    mask_ST = torch.ones_like(policy.entropy_ST, dtype=torch.bool)
    entropy = first_entropy if control == "first_token" else step_entropy
    num_steps = len(ROWS)
    parts = controlled_modulation(
        normalise_entropy(entropy(policy.entropy_ST.detach(), mask_ST)),
        torch.full((num_steps,), -1),
        control,
        trajectory_S=torch.arange(num_steps),
        is_valid_S=torch.ones(num_steps, dtype=torch.bool),
        seed=0,
        k=k,
    )
    credit_S = ordered_credit(advantage_S, parts, zeta=0.0, order=order, scaled="all", center=True).credit_S
    return policy.gradient((credit_S * policy.logprob_S).mean())


def test_the_rows_are_as_frequent_as_they_are_probable() -> None:
    policy = Policy()
    assert len(ROWS) == 64
    assert policy.gradient(policy.logprob_S.mean()).abs().max() < 1e-8  # E[grad log-prob] = 0


@pytest.mark.parametrize("order", ["scale_then_center", "bias_only"])
def test_a_negative_mean_advantage_is_the_score_term_of_an_entropy_bonus(order: Order) -> None:
    """grad E[H] = E[H grad log-prob] + E[grad H]. With an advantage of -1 everywhere, nothing that was done is better
    than anything else, and still the credit 1 - g moves the policy: along the first term, times k over the range of H.
    The usual bonus, which differentiates the entropies of the tokens as they were sampled, is the other term."""
    policy = Policy()
    advantage_S, k = torch.full((64,), -1.0, dtype=torch.double), 1e-3
    entropy_S = policy.entropy_ST.mean(1)
    score_term = policy.gradient((entropy_S.detach() * policy.logprob_S).mean())
    found = gradient_of_the_credit(policy, advantage_S, "none", order, k)
    expected = k / float((entropy_S.max() - entropy_S.min()).detach()) * score_term
    assert found.norm() > 1e-5
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-8)
    whole = policy.gradient((policy.logprob_S.exp() / policy.logprob_S.exp().detach() * entropy_S).mean())
    torch.testing.assert_close(whole, score_term + policy.gradient(entropy_S.mean()))
    # here the least sure second token follows the likeliest first one: the credit makes that one likelier still, which
    # lowers the first token's entropy by more than it raises the second's
    assert torch.dot(found, score_term) > 0 > torch.dot(found, whole)


@pytest.mark.parametrize(
    ("control", "order", "advantage"),
    [
        ("none", "center_then_scale", -1.0),  # the mean is gone before g could meet it
        ("none", "scale_then_center", 0.0),  # statistics=step leaves no mean
        ("first_token", "scale_then_center", -1.0),  # of the state alone: E[g(s) grad log-prob | s] = 0
        ("first_token", "bias_only", -1.0),
    ],
)
def test_without_the_mean_or_without_sampled_words_in_it_there_is_none(
    control: Control, order: Order, advantage: float
) -> None:
    policy = Policy()
    advantage_S = torch.full((64,), advantage, dtype=torch.double)
    assert gradient_of_the_credit(policy, advantage_S, control, order, 1.0).abs().max() < 1e-8


def test_a_positive_mean_lowers_entropy_instead() -> None:
    policy = Policy()
    up, down = (
        gradient_of_the_credit(policy, torch.full((64,), sign, dtype=torch.double), "none", "bias_only", 1.0)
        for sign in (-1.0, 1.0)
    )
    torch.testing.assert_close(up, -down)


def test_the_mean_advantage_over_steps_is_the_covariance_with_length() -> None:
    """Group-relative advantages have mean 0 over trajectories, so over steps mean A = Cov(L, A) / mean L.

    Won after 10 and 20 steps, lost after 50 and 50; A = 1, 1, -1, -1: (10 + 20 - 50 - 50) / 130 = -0.538;
    Cov = mean(L A) = -70 / 4 = -17.5, mean L = 32.5.
    """
    advantage_N, length_N = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([10, 20, 50, 50])
    advantage_S = advantage_N.repeat_interleave(length_N)
    assert float(advantage_S.mean()) == pytest.approx(-70 / 130)
    covariance = ((length_N - length_N.float().mean()) * (advantage_N - advantage_N.mean())).mean()
    assert float(covariance / length_N.float().mean()) == pytest.approx(-17.5 / 32.5)
    per_task = group_mean(advantage_N, torch.zeros(4, dtype=torch.long), 1)
    assert per_task.item() == 0
