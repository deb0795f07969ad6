"""What the gradient may not depend on, and which tokens it may not come from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from empg_cli.algorithms.assemble import compute_credit
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.logprobs import score_batch
from empg_cli.learner.split import microbatches, minibatches, reading_shares
from empg_cli.learner.update import accumulate_gradient
from empg_cli.model import packing
from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.types import Batch
from tests.support.tiny import tiny_config, tiny_policy, tiny_rollout


def scored_batch(cfg: TrainConfig, policy: Policy) -> Batch:
    """A rollout batch in which every trajectory earned something else."""
    trajectories = tiny_rollout(cfg, policy)
    for number, trajectory in enumerate(trajectories):
        trajectory.steps[-1].reward += 0.7 * number
    batch = make_batch(trajectories, append_only=cfg.rollout.context == "transcript")
    batch.ref_logprob_ST, _ = score_batch(policy, batch, cfg)
    batch.ref_logprob_ST = batch.ref_logprob_ST - 0.3 * batch.mask_ST
    batch.credit_S, _ = compute_credit(cfg.algo, batch)
    return batch


def gradient(policy: Policy, batch: Batch, cfg: TrainConfig) -> torch.Tensor:
    policy.model.zero_grad()
    accumulate_gradient(policy, batch, torch.arange(batch.num_steps), cfg)
    return torch.cat([parameter.grad.flatten() for parameter in policy.model.parameters()])


@pytest.mark.parametrize("context", ["transcript", "window"])
@pytest.mark.parametrize("weighting", ["token", "step", "trajectory"])
def test_gradient_does_not_depend_on_micro_batches(context: str, weighting: str) -> None:
    base = tiny_config(f"rollout={context}", f"algo.loss.weighting={weighting}", "algo.loss.kl_coef=0.1")
    policy = tiny_policy(base)
    batch = scored_batch(base, policy)
    whole = gradient(
        policy,
        batch,
        base.model_copy(update={"trainer": base.trainer.model_copy(update={"tokens_per_microbatch": 10**9})}),
    )
    counts = set()
    for tokens in (1, 200, 500, 1000):
        cfg = base.model_copy(update={"trainer": base.trainer.model_copy(update={"tokens_per_microbatch": tokens})})
        counts.add(len(list(microbatches(batch, torch.arange(batch.num_steps), tokens, packs=True))))
        torch.testing.assert_close(gradient(policy, batch, cfg), whole, atol=1e-6, rtol=1e-4)
    assert len(counts) >= 3, "the budgets must give different splits, or this shows nothing"
    assert whole.abs().max() > 1e-4


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_only_positions_before_sampled_tokens_receive_gradient(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final norm is what the head reads: it may run on these positions only, and on all of them."""
    cfg = tiny_config(f"rollout={context}", "trainer.tokens_per_microbatch=100000")
    policy = tiny_policy(cfg)
    batch = scored_batch(cfg, policy)
    seen: list[torch.Tensor] = []
    norm = policy.model.model.norm
    plain = norm.forward

    def normed(hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = plain(hidden)
        if output.requires_grad:
            output.retain_grad()
            seen.append(output)
        return output

    monkeypatch.setattr(norm, "forward", normed)
    accumulate_gradient(policy, batch, torch.arange(batch.num_steps), cfg)
    trained = []
    parts = microbatches(batch, torch.arange(batch.num_steps), cfg.trainer.tokens_per_microbatch, packs=True)
    with torch.no_grad():
        for step in torch.cat([steps_S for _, steps_S in parts]).tolist():
            start, size = int(batch.step_start_S[step]), int(batch.mask_ST[step].sum())
            row = batch.row_ids[int(batch.step_row_S[step])]
            hidden_TD = policy.model.model(input_ids=row[None]).last_hidden_state[0]
            trained.append(hidden_TD[start - 1 : start - 1 + size])
    assert len(torch.cat(trained)) > 50
    torch.testing.assert_close(torch.cat(seen).detach(), torch.cat(trained), atol=2e-5, rtol=0)
    for output_TD in seen:
        assert output_TD.grad is not None
        assert (output_TD.grad.abs().sum(-1) != 0).all()


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("context", ["transcript", "window"])
def test_microbatches_hold_every_step_of_their_rows(context: str, packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARED_LEAST", 1)
    cfg = tiny_config(f"rollout={context}")
    batch = make_batch(tiny_rollout(cfg, tiny_policy(cfg)), append_only=context == "transcript")
    steps = torch.arange(batch.num_steps)[batch.trajectory_S != 2]
    parts = microbatches(batch, steps, 400, packs=packs)
    assert len(parts) > 1
    assert sorted(torch.cat([part for _, part in parts]).tolist()) == steps.tolist()
    computed = tokens = 0
    for rows, part in parts:
        assert set(batch.step_row_S[part].tolist()) == set(rows)
        assert part.tolist() == sorted(part.tolist()), "steps stay in order"
        read = [batch.row_ids[row][:-1].tolist() for row in rows]  # the last sampled token predicts nothing
        tokens += sum(map(len, read))
        beginnings = {tuple(row[:size]) for row in read for size in range(1, len(row) + 1)}
        size = len(beginnings) if packs else len(rows) * max(map(len, read))
        assert size <= 400
        computed += size
    shares = reading_shares(batch, parts, packs=packs)
    if packs:
        assert shares == {"perf/padding": 0.0, "perf/shared": pytest.approx(1 - computed / tokens)}
        assert shares["perf/shared"] > 0.05
    else:
        assert shares == {"perf/padding": pytest.approx(1 - tokens / computed), "perf/shared": 0.0}
        assert 0 < shares["perf/padding"] < 0.5


def test_minibatches_are_whole_trajectories_and_cover_everything_once() -> None:
    cfg = tiny_config()
    batch = make_batch(tiny_rollout(cfg, tiny_policy(cfg)), append_only=True)
    parts = list(minibatches(batch, 4, torch.tensor([3, 0, 5, 1, 4, 2])))
    assert sorted(torch.cat(parts).tolist()) == list(range(batch.num_steps))
    owners = [set(batch.trajectory_S[part].tolist()) for part in parts]
    assert owners == [{3, 0}, {5, 1}, {4}, {2}]


@pytest.mark.parametrize(("trajectories", "count", "sizes"), [
    (128, 16, [8] * 16), (113, 16, [8] + [7] * 15), (17, 16, [2] + [1] * 15), (3, 4, [1] * 3), (1, 1, [1]), (0, 2, []),
])  # fmt: skip
def test_minibatches_are_as_many_as_asked_for_and_alike(trajectories: int, count: int, sizes: list[int]) -> None:
    """A step of one trajectory would weigh it eight times as much as the others."""
    batch: Any = SimpleNamespace(trajectory_S=torch.arange(trajectories))
    assert [len(part) for part in minibatches(batch, count, torch.arange(trajectories))] == sizes


def test_both_contexts_give_the_same_steps() -> None:
    """One episode laid out as one row and as a row per step: the same step tensors, other rows."""
    cfg = tiny_config()
    trajectories = tiny_rollout(cfg, tiny_policy(cfg), tasks=2)
    joined, apart = (make_batch(trajectories, append_only=flag) for flag in (True, False))
    assert len(joined.row_ids) == 4 and len(apart.row_ids) == joined.num_steps == apart.num_steps
    for name in ("mask_ST", "token_ST", "old_logprob_ST", "entropy_ST", "trajectory_S", "next_S", "reward_N"):
        torch.testing.assert_close(getattr(joined, name), getattr(apart, name))
    for batch in (joined, apart):
        for step in range(batch.num_steps):
            row, start = batch.row_ids[int(batch.step_row_S[step])], int(batch.step_start_S[step])
            tokens = batch.token_ST[step][batch.mask_ST[step]]
            assert row[start : start + len(tokens)].tolist() == tokens.tolist()
