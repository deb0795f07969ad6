"""One update against the plain form: explicit logits and autograd for the gradient, counted optimiser steps."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from empg_cli.config.schema import TrainConfig
from empg_cli.learner.logprobs import score_batch
from empg_cli.learner.update import accumulate_gradient, update_policy
from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.types import Batch, Trajectory
from tests.support.made import made_trajectories
from tests.support.tiny import tiny_config, tiny_policy

TEMPERATURE = 0.7
CFG = tiny_config(f"rollout.temperature={TEMPERATURE}", "algo=dapo", "trainer.minibatches=1")
CREDIT_OF_TRAJECTORY = [1.5, -0.5, 0.25, -1.25]


class CountedSgd(torch.optim.SGD):
    """Plain descent that notes the gradient of each of its steps."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.model.parameters(), lr=123.0)
        self.gradients: list[Tensor] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.gradients.append(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]))
        super().step()


def with_trainer(**changes: Any) -> TrainConfig:
    return CFG.model_copy(update={"trainer": CFG.trainer.model_copy(update=changes)})


@cache
def shared_policy() -> Policy:
    return tiny_policy(CFG)


@pytest.fixture
def policy() -> Policy:
    """With the same weights for every test."""
    return trainable_copy(shared_policy())


def trainable_copy(policy: Policy) -> Policy:
    copy = policy.frozen_copy()
    copy.model.requires_grad_(True)
    return copy


def credited(trajectories: list[Trajectory], *, append_only: bool = True) -> Batch:
    batch = make_batch(trajectories, append_only=append_only)
    batch.credit_S = torch.tensor(CREDIT_OF_TRAJECTORY)[batch.trajectory_S]
    return batch


def weights(policy: Policy) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.model.parameters()])


def explicit(policy: Policy, trajectories: list[Trajectory]) -> list[tuple[list[float], Tensor, Tensor]]:
    """(old log-probs, log-probs, entropies) of every step, from the logits of the whole transcript before it."""
    found = []
    for played in trajectories:
        read: list[int] = []
        for step in played.steps:
            read += step.prompt_ids
            ids = torch.tensor([read + step.response_ids])
            logits = policy.model(input_ids=ids).logits[0, len(read) - 1 : -1] / TEMPERATURE
            logp = torch.log_softmax(logits, -1)
            chosen = logp[torch.arange(len(step.response_ids)), torch.tensor(step.response_ids)]
            found.append((step.logprobs, chosen, -(logp.exp() * logp).sum(-1)))
            read += step.response_ids
    return found


def played() -> list[Trajectory]:
    """With old log-probs so near to the policy's that a part of the tokens is clipped and a part is not."""
    trajectories = made_trajectories([3, 1, 2, 4])
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    with torch.no_grad():
        for number, (step, (_, logprob, _)) in enumerate(
            zip(steps, explicit(shared_policy(), trajectories), strict=True)
        ):
            step.logprobs = [value + 0.3 * math.sin(number + 2 * place) for place, value in enumerate(logprob.tolist())]
    return trajectories


def test_scores_are_those_of_the_distribution_that_was_sampled_from(policy: Policy) -> None:
    trajectories = played()
    batch = make_batch(trajectories, append_only=True)
    logprob_ST, entropy_ST = score_batch(policy, batch, CFG)
    expected = explicit(policy, trajectories)
    torch.testing.assert_close(logprob_ST[batch.mask_ST], torch.cat([row[1] for row in expected]), atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy_ST[batch.mask_ST], torch.cat([row[2] for row in expected]), atol=1e-5, rtol=0)


def test_gradient_at_a_temperature_is_that_of_explicit_logits(policy: Policy) -> None:
    trajectories = played()
    loss_settings = CFG.algo.loss.model_copy(update={"entropy_coef": 0.05})
    cfg = CFG.model_copy(update={"algo": CFG.algo.model_copy(update={"loss": loss_settings})})
    batch = credited(trajectories)
    accumulate_gradient(policy, batch, torch.arange(batch.num_steps), cfg)
    actual = [parameter.grad.clone() for parameter in policy.model.parameters()]

    policy.model.zero_grad()
    total, clipped = torch.zeros(()), 0
    tokens = sum(trajectory.num_response_tokens for trajectory in trajectories)
    for (old, logprob, entropy), number in zip(
        explicit(policy, trajectories), batch.trajectory_S.tolist(), strict=True
    ):
        advantage = CREDIT_OF_TRAJECTORY[number]
        for before, now, uncertainty in zip(old, logprob, entropy, strict=True):
            ratio = torch.exp(now - before)
            bounded = min(max(ratio.item(), 0.8), 1.28)  # DAPO's bounds
            is_held = bounded * advantage < ratio.item() * advantage
            clipped += is_held
            total = total - (bounded * advantage if is_held else ratio * advantage) / tokens
            total = total - 0.05 * uncertainty / tokens
    total.backward()
    assert 0 < clipped < tokens / 2, "some tokens are held by the clip and most are not"
    for got, parameter in zip(actual, policy.model.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, atol=2e-6, rtol=1e-4)


def test_the_gradient_norm_is_cut_and_logged_as_it_was(policy: Policy) -> None:
    batch, before = credited(played()), weights(policy)
    moved = []
    for limit in (1e9, 1e-3):
        copy = trainable_copy(policy)
        metrics = update_policy(copy, CountedSgd(copy), batch, with_trainer(max_grad_norm=limit), lr=0.5, update=0)
        moved.append((weights(copy) - before).norm().item())
        assert metrics["actor/grad_norm"] * 0.5 == pytest.approx(moved[0], rel=1e-3)
    assert moved[0] > 0.01
    assert moved[1] == pytest.approx(0.5 * 1e-3, rel=1e-2)  # lr times the largest norm


@pytest.mark.parametrize(("epochs", "minibatches", "steps"), [(1, 1, 1), (3, 1, 3), (1, 4, 4), (3, 2, 6)])
def test_every_epoch_makes_its_optimiser_steps(policy: Policy, epochs: int, minibatches: int, steps: int) -> None:
    optimizer = CountedSgd(policy)
    cfg = with_trainer(epochs=epochs, minibatches=minibatches)
    update_policy(policy, optimizer, credited(played()), cfg, lr=0.01, update=0)
    assert len(optimizer.gradients) == steps


def test_the_learning_rate_is_the_one_given(policy: Policy) -> None:
    before, optimizer = weights(policy), CountedSgd(policy)
    metrics = update_policy(policy, optimizer, credited(played()), with_trainer(lr=7.0), lr=0.25, update=0)
    assert metrics["actor/lr"] == 0.25
    torch.testing.assert_close(weights(policy), before - 0.25 * optimizer.gradients[0])


def test_no_step_sees_the_gradient_of_another(policy: Policy) -> None:
    """With learning rate 0 the policy stays, so every epoch has the first one's gradient."""
    optimizer = CountedSgd(policy)
    update_policy(policy, optimizer, credited(played()), with_trainer(epochs=3, max_grad_norm=1e9), lr=0.0, update=0)
    first, *others = optimizer.gradients
    assert first.norm() > 0.01
    for gradient in others:
        torch.testing.assert_close(gradient, first, atol=1e-6, rtol=1e-4)


def test_a_minibatch_is_averaged_over_its_own_tokens(policy: Policy) -> None:
    """Four times the same episode: each mini-batch of one has the gradient of the mini-batch of all."""
    episode = played()[0]
    batch = make_batch([episode] * 4, append_only=True)
    batch.credit_S = torch.full((batch.num_steps,), 0.8)
    found: dict[int, list[Tensor]] = {}
    for count in (1, 4):
        optimizer = CountedSgd(policy)
        update_policy(policy, optimizer, batch, with_trainer(minibatches=count, max_grad_norm=1e9), lr=0.0, update=0)
        found[count] = optimizer.gradients
    assert found[1][0].norm() > 0.01
    for gradient in found[4]:
        torch.testing.assert_close(gradient, found[1][0], atol=1e-6, rtol=1e-4)


def test_minibatches_are_drawn_anew_in_every_update_and_epoch(policy: Policy) -> None:
    """Eight episodes in eight mini-batches; the order shows in the gradients' norms. Equal keys give equal orders."""
    batch = make_batch(made_trajectories([1, 2, 3, 1, 2, 3, 1, 2]), append_only=True)
    batch.credit_S = torch.linspace(-1, 1, batch.num_steps)

    def orders(update: int) -> list[list[float]]:
        optimizer = CountedSgd(policy)
        cfg = with_trainer(epochs=2, minibatches=8, max_grad_norm=1e9)
        update_policy(policy, optimizer, batch, cfg, lr=0.0, update=update)
        norms = [round(gradient.norm().item(), 4) for gradient in optimizer.gradients]
        return [norms[:8], norms[8:]]

    first, second = orders(0), orders(1)
    assert sorted(first[0]) == sorted(first[1]) == sorted(second[0])
    assert len({tuple(order) for order in (*first, *second)}) == 4
    assert orders(0) == first


def test_an_infinite_gradient_changes_nothing_and_is_counted(policy: Policy) -> None:
    batch, before = credited(played()), weights(policy)
    assert batch.credit_S is not None
    batch.credit_S[0] = math.inf
    metrics = update_policy(policy, CountedSgd(policy), batch, CFG, lr=0.1, update=0)
    assert metrics["actor/skipped_steps"] == 1.0
    assert torch.equal(weights(policy), before)
