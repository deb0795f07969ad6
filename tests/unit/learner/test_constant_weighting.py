"""Under weighting=constant the loss is a sum over a constant; what is called a mean or a share still is one."""

from __future__ import annotations

import pytest
import torch

from empg_cli.algorithms.assemble import compute_loss, loss_weights
from empg_cli.config.algo import ClipLoss
from empg_cli.learner.update import accumulate_gradient
from empg_cli.model.batch import make_batch
from tests.support.tiny import tiny_config, tiny_policy, tiny_rollout

CONSTANT = ClipLoss(
    kind="clip",
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=None,
    weighting="constant",
    constant_tokens=1000,
    kl_coef=0.5,
    kl_estimator="k2",
    kl_clamp=None,
    entropy_coef=0.25,
    importance_cap=None,
)


def test_means_and_shares_by_hand() -> None:
    """Two episodes of one step, three tokens and one: weights 1 / (2 x 1000), 4 of them."""
    mask_ST = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    trajectory_S = torch.tensor([0, 1])
    weight_ST = loss_weights(CONSTANT, mask_ST, trajectory_S)
    # One of four tokens has ratio 2 (held above, its advantage is positive), the others 1.
    logprob_ST = torch.tensor([[-1.0 + torch.log(torch.tensor(2.0)), -1.0, -1.0], [-1.0, 0.0, 0.0]])
    terms = compute_loss(
        CONSTANT,
        logprob_ST=logprob_ST,
        entropy_ST=torch.tensor([[0.2, 0.4, 0.6], [0.8, 9.0, 9.0]]),
        old_logprob_ST=torch.full((2, 3), -1.0),
        ref_logprob_ST=logprob_ST - torch.tensor([[0.2, 0.2, 0.2], [0.6, 0.0, 0.0]]),
        credit_S=torch.tensor([1.0, -1.0]),
        mask_ST=mask_ST,
        weight_ST=weight_ST,
        total_weight=float(weight_ST.sum()),
    )
    metrics = {name: float(value) for name, value in terms.metrics.items()}
    assert metrics["actor/entropy"] == pytest.approx(0.5, rel=1e-4)
    # k2 = d^2 / 2: 0.02 three times and 0.18
    assert metrics["actor/kl_loss"] == pytest.approx(0.06, rel=1e-4)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(0.25, rel=1e-4)
    assert metrics["actor/clip_ratio/high"] == pytest.approx(0.25, rel=1e-4)
    # mean of -log 2, 0, 0, 0
    assert metrics["actor/ppo_kl"] == pytest.approx(-0.1732868, rel=1e-4)
    # the loss stays a sum over the constant: -(1.2 + 1 + 1 - 1) / 2000, then 0.5 x 0.24 / 2000 and 0.25 x 2 / 2000
    assert metrics["actor/pg_loss"] == pytest.approx(-0.0011, rel=1e-4)
    assert float(terms.loss) == pytest.approx(-0.0011 + 0.00006 - 0.00025, rel=1e-4)


def test_an_update_logs_the_same_means_as_under_token_weighting() -> None:
    cfg = tiny_config("algo=dr_grpo", "benchmark.train_games=2", "benchmark.max_steps=3")
    policy = tiny_policy(cfg)
    batch = make_batch(tiny_rollout(cfg, policy, tasks=2), append_only=True)
    batch.credit_S = torch.linspace(-1, 1, batch.num_steps)
    batch.old_logprob_ST = batch.old_logprob_ST - 0.3 * batch.mask_ST * (torch.arange(batch.mask_ST.shape[1]) % 2)
    everything = torch.arange(batch.num_steps)
    loss = cfg.algo.loss.model_copy(update={"weighting": "token", "constant_tokens": None})
    by_token = cfg.model_copy(update={"algo": cfg.algo.model_copy(update={"loss": loss})})
    constant = accumulate_gradient(policy, batch, everything, cfg)
    token = accumulate_gradient(policy, batch, everything, by_token)
    assert constant["actor/pg_clipfrac"] > 0
    for name in ("actor/entropy", "actor/ppo_kl", "actor/pg_clipfrac", "actor/clip_ratio/low", "actor/clip_ratio/high"):
        assert constant[name] == pytest.approx(token[name], rel=1e-4, abs=1e-7)
    assert abs(constant["actor/pg_loss"]) < abs(token["actor/pg_loss"])
