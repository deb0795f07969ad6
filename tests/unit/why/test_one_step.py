"""One step under several credits (scripts/why/one_step.py), on a tiny policy."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from empg_cli import config
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.learner.checkpoint import save_checkpoint
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.loading import load_policy
from empg_cli.runs.checkpoint import TrainState
from scripts.why import one_step
from scripts.why.one_step import KINDS, GradientStep, Setup, Steps
from tests.support.made import made_trajectories
from tests.support.tiny import SCRATCH, tiny_config, tiny_policy

WORDS = (
    *SCRATCH, "trainer.threads=1", "benchmark.max_steps=4", "rollout.max_new_tokens=4", "trainer.tasks_per_update=2",
    "algo.group_size=3", "trainer.lr=0.01", "logger.console=quiet",
)  # fmt: skip


def test_steps_are_valid_refused_or_repeat_what_was_refused() -> None:
    (trajectory,) = made_trajectories([6])
    for step, (action, admissible) in zip(
        trajectory.steps, [("a", True), ("b", False), ("b", False), ("a", True), ("c", False), ("b", True)], strict=True
    ):
        step.action, step.admissible, step.well_formed = action, admissible, True
    found = one_step.described([trajectory])
    assert [KINDS[int(kind)] for kind in found.kind] == ["valid", "refused", "repeated", "valid", "refused", "valid"]
    assert found.length.tolist() == [6.0] * 6


def test_shares_of_an_explanation_by_hand() -> None:
    rng = np.random.default_rng(0)
    steps = Steps(np.zeros(400), rng.integers(0, 3, 400).astype(float), rng.integers(1, 9, 400) * 1.0, rng.random(400))
    by = {row["by"]: row for row in one_step.explanations(steps, 3 * steps.entropy + 2)}
    assert by["entropy"]["alone"] == pytest.approx(1)
    assert by["validity"]["alone"] < 0.05 > by["length"]["alone"]
    assert sum(row["share"] for row in by.values()) == pytest.approx(by["length"]["joint"]) == pytest.approx(1)
    assert all(row["joint"] == 0 for row in one_step.explanations(steps, np.full(400, 2.0)))


def test_a_centring_changes_nothing_that_could_be_explained() -> None:
    """In float32 its constant varies by rounding; a change of a hundred thousandth of the credit is one."""
    credit = torch.randn(400, generator=torch.Generator().manual_seed(0))
    centred = (credit - credit.mean()).double().numpy()
    base = credit.double().numpy()
    assert np.ptp(centred - base) > 0
    assert not one_step.beyond(centred, base).any()
    moved = base.copy()
    moved[0] += 1e-5 * np.abs(base).max()
    assert one_step.beyond(moved, base)[0] > 0


def test_one_batch_under_several_credits() -> None:
    variants = {"grpo": ["algo=grpo"], "same": ["algo=empg", "algo.credit.k=0", "algo.credit.zeta=0",
                "algo.credit.center=false"], "empg": ["algo=empg"]}  # fmt: skip
    changes, explained = one_step.one_batch([*WORDS, "seed=1"], variants, Setup())
    whole = {row["variant"]: row for row in changes if row["action"] == "all"}
    for key in ("n", "credit", "d_logprob", "d_entropy"):
        assert whole["same"][key] == whole["grpo"][key], "the same weights, batch and credit: the same step"
    assert whole["empg"]["d_logprob"] != whole["grpo"]["d_logprob"] != 0
    assert whole["empg"]["credit"] == pytest.approx(0, abs=1e-6)
    parts = [row for row in changes if row["variant"] == "empg" and row["action"] != "all"]
    assert sum(row["n"] for row in parts) == whole["empg"]["n"]
    assert sum(row["n"] * row["d_logprob"] for row in parts) == pytest.approx(
        whole["empg"]["n"] * whole["empg"]["d_logprob"]
    )
    assert {row["joint"] for row in explained if row["variant"] == "same"} == {0.0}
    assert {(row["variant"], row["of"], row["by"]) for row in explained} == set(
        itertools.product(("same", "empg"), ("credit", "logprob"), ("entropy", "validity", "length"))
    )


def test_it_is_one_step_whatever_the_settings_say() -> None:
    variants = {"grpo": ["algo=grpo", "trainer.minibatches=2"]}
    for setup in (Setup("adamw"), Setup("sgd")):
        once, _ = one_step.one_batch([*WORDS, "trainer.minibatches=1", "trainer.epochs=1"], variants, setup)
        assert one_step.one_batch([*WORDS, "trainer.minibatches=2", "trainer.epochs=2"], variants, setup)[0] == once


def test_a_gradient_step_has_its_length_and_the_gradients_direction() -> None:
    policy = tiny_policy(tiny_config())
    first, second = policy.parameters()[:2]
    optimizer = GradientStep(policy, 0.1)
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert first.grad is not None and second.grad is not None
    first.grad.view(-1)[0], second.grad.view(-1)[1] = 30.0, -40.0  # length 50: the step is -.06 and +.08
    optimizer.step()
    changes = [new.detach() - old for new, old in zip(policy.parameters(), before, strict=True)]
    assert float(changes[0].view(-1)[0]) == pytest.approx(-0.06, abs=1e-6)
    assert float(changes[1].view(-1)[1]) == pytest.approx(0.08, abs=1e-6)
    assert sum(int((change != 0).sum()) for change in changes) == 2
    optimizer.zero_grad()
    optimizer.step()
    assert all((parameter == old + change).all() for parameter, old, change in
               zip(policy.parameters(), before, changes, strict=True)), "no gradient, no step"  # fmt: skip


def test_a_gradient_step_sees_the_size_of_a_loss_in_the_norm_alone() -> None:
    half = ["algo=grpo", "algo.loss.weighting=constant", "algo.loss.constant_tokens=20"]
    variants = {"half": half, "whole": [*half[:-1], "algo.loss.constant_tokens=10"]}
    changes, _ = one_step.one_batch([*WORDS, "seed=1"], variants, Setup())
    one, two = (next(row for row in changes if row["variant"] == name) for name in variants)
    assert two["grad_norm"] == pytest.approx(2 * one["grad_norm"], rel=1e-4) != 0
    assert two["d_logprob"] == pytest.approx(one["d_logprob"], rel=1e-3) != 0


def test_from_a_checkpoint_with_its_moments_and_the_runs_reference(tmp_path: Path) -> None:
    cfg = tiny_config(*WORDS, "seed=3", "algo=grpo", "algo.loss.kl_coef=0.1")
    policy = tiny_policy(cfg)
    config.write(cfg, tmp_path / "config.yaml")
    optimizer = make_optimizer(policy, cfg.trainer)
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint = save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=1)
    assert checkpoint is not None
    learner = Setup("adamw", checkpoint=checkpoint).learner(tiny_config(*WORDS, "seed=0", "algo.loss.kl_coef=0.1"))
    run_began_with = load_policy(
        cfg.model, "alfworld", words=closed_vocabulary("alfworld"), seed=3, device=torch.device("cpu")
    )
    assert learner.reference is not None
    for found, wanted in ((learner.policy, policy), (learner.reference, run_began_with)):
        for one, other in zip(found.model.parameters(), wanted.model.parameters(), strict=True):
            assert torch.equal(one, other)
    moments = learner.optimizer.state[learner.policy.parameters()[0]]
    assert moments["step"] == 1 and moments["exp_avg"].flatten()[0] == pytest.approx(0.1)
    assert not Setup("adamw").learner(cfg).optimizer.state, "without a checkpoint the moments are empty"


def test_what_is_no_checkpoint_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, said in (
        (["--model", str(tmp_path)], "has no model/: give a checkpoint"),
        (["algo.group_size=1x"], "algo.group_size"),
        (["trainer.warm_start.steps=2"], "trainer.warm_start is not made here"),
    ):
        monkeypatch.setattr(sys, "argv", ["one_step", "--out", str(tmp_path / "out"), *WORDS, *more])
        with pytest.raises(SystemExit, match="2"):
            one_step.main()
        assert said in capsys.readouterr().err
