"""NaN and infinity: the optimiser step is left out, counted, and after a few the run ends with the batch kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from empg_cli import loop
from empg_cli.algorithms.assemble import CreditParts, credit_parts
from empg_cli.learner import update as update_module
from empg_cli.learner.update import update_policy
from empg_cli.model.batch import make_batch
from empg_cli.observe.health import HealthMonitor, HealthStop
from empg_cli.observe.step_histograms import step_histograms
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.rollout.torch_engine.sampling import sample
from empg_cli.runs.bad_batch import save_bad_batch
from empg_cli.runs.checkpoint import all_checkpoints
from empg_cli.types import Batch
from tests.support.made import made_trajectories
from tests.support.tiny import tiny_config, tiny_policy

CFG = tiny_config("algo=dapo", "trainer.minibatches=2", "trainer.epochs=1")
NAN, INF = math.nan, math.inf


def made_batch() -> Batch:
    batch = make_batch(made_trajectories([3, 1, 2, 4]), append_only=True)
    batch.credit_S = torch.tensor([1.5, -0.5, 0.25, -1.25])[batch.trajectory_S]
    return batch


def spoil(name: str, value: float) -> Callable[[Batch], None]:
    def does(batch: Batch) -> None:
        getattr(batch, name).view(-1)[0] = value

    return does


@pytest.mark.parametrize("name", ["entropy_ST", "old_logprob_ST", "credit_S"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_only_the_minibatch_that_holds_it_is_left_out(name: str, value: float) -> None:
    policy, batch = tiny_policy(CFG), made_batch()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    spoil(name, value)(batch)
    metrics = update_policy(policy, optimizer, batch, CFG, lr=0.1, update=0)
    assert metrics["actor/skipped_steps"] == 0.5
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}
    assert all(parameter.isfinite().all() for parameter in policy.parameters())


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_loss_that_is_not_finite_changes_neither_weights_nor_optimiser(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tiny_policy(CFG)
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    original = update_module.compute_loss

    def spoiled(*arguments: Any, **options: Any) -> Any:
        terms = original(*arguments, **options)
        return replace(terms, metrics={**terms.metrics, "actor/pg_loss": torch.tensor(value)})

    monkeypatch.setattr(update_module, "compute_loss", spoiled)
    metrics = update_policy(policy, optimizer, made_batch(), CFG, lr=0.1, update=0)
    assert metrics["actor/skipped_steps"] == 1.0
    assert not optimizer.state
    assert all(torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))


def test_a_good_update_skips_nothing() -> None:
    policy = tiny_policy(CFG)
    metrics = update_policy(
        policy, torch.optim.AdamW(policy.parameters()), made_batch(), CFG, lr=0.1, update=0
    )  # fmt: skip
    assert "actor/skipped_steps" not in metrics


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_drawn_from_nan_is_a_token(temperature: float) -> None:
    token_B, logprob_B, _ = sample(torch.full((2, 5), NAN), torch.tensor([0.1, 0.9]), temperature)
    assert ((token_B >= 0) & (token_B < 5)).all()
    assert logprob_B.isnan().all(), "and its log-prob tells"


def monitor(cap: int) -> HealthMonitor:
    return HealthMonitor(CFG.trainer.health.model_copy(update={"max_bad_updates": cap}), max_grad_norm=1.0, history={})


def test_updates_in_a_row_are_counted_and_all_of_them() -> None:
    health = monitor(2)
    rows = [{}, {"actor/skipped_steps": 0.5}, {}, {"actor/skipped_steps": 1.0}, {"actor/skipped_steps": 1.0}]
    for update, row in enumerate(rows, 1):
        health.observe(update, row)
    assert (health.bad_in_a_row, health.bad_updates) == (2, 3)
    assert health.metrics()["health/bad_updates"] == 3.0
    assert "health/bad_updates" not in monitor(2).metrics()


@pytest.mark.parametrize("algo", ["empg", "grpo"])
def test_entropies_that_are_not_finite_leave_the_credit_that_needs_none(algo: str) -> None:
    batch = made_batch()
    spoil("entropy_ST", NAN)(batch)
    parts, _ = credit_parts(tiny_config(f"algo={algo}").algo, batch)
    assert bool(parts.credit_S.isnan().all()) == (algo == "empg"), "min-max spreads it over the whole batch"


def test_a_batch_is_kept_whole(tmp_path: Path) -> None:
    trajectories, batch = made_trajectories([3, 1]), make_batch(made_trajectories([3, 1]), append_only=True)
    spoil("entropy_ST", NAN)(batch)
    file = save_bad_batch(tmp_path, 12, batch, {"actor/pg_loss": NAN, "actor/lr": 0.5}, trajectories)
    said = json.loads(file.with_suffix(".json").read_text())
    assert (said["update"], said["not_finite"]) == (12, {"entropy_ST": 1})
    assert said["metrics"]["actor/pg_loss"] is None
    assert said["metrics"]["actor/lr"] == 0.5
    assert [episode["steps"] for episode in said["episodes"]] == [3, 1]
    tensors = load_file(file)
    assert torch.equal(tensors["entropy_ST"], batch.entropy_ST) or tensors["entropy_ST"].isnan().sum() == 1
    rows = tensors["row_ids"].split(tensors["row_length_B"].tolist())
    assert all(torch.equal(kept, row) for kept, row in zip(rows, batch.row_ids, strict=True))


def test_histograms_leave_out_what_is_not_finite() -> None:
    entropy_S = torch.tensor([0.5, NAN, 1.0])
    parts = CreditParts(entropy_S, entropy_S, torch.full((3,), NAN), torch.full((3,), INF), entropy_S)
    shown = step_histograms(parts, torch.tensor([1, 2, -1]), torch.tensor([True, True, False]))
    assert sum(shown["hist/step_entropy_won"].counts) == 1
    assert "hist/weight" not in shown


def test_a_model_that_has_become_nan_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second update makes the weights NaN in a way that no loss has shown."""
    words = (
        *("algo=empg", "algo.group_size=2", "trainer.tasks_per_update=2", "trainer.updates=9", "trainer.eval_every=0"),
        *("trainer.eval_before=false", "trainer.checkpoint_every=1", "trainer.keep_checkpoints=9"),
        *("trainer.health.max_bad_updates=2", "trainer.health.preflight=off", "logger.wandb.mode=disabled"),
    )
    published = TorchEngine.publish

    def publish(self: TorchEngine, version: int) -> dict[str, float]:
        if version == 2:
            with torch.no_grad():
                for parameter in self._reader._policy.parameters():
                    parameter.fill_(NAN)
        return published(self, version)

    monkeypatch.setattr(TorchEngine, "publish", publish)
    with pytest.raises(HealthStop, match="2 updates in a row had NaN") as stopped:
        loop.train(tiny_config(*words), tmp_path / "run")
    assert stopped.value.exit_code == 3
    assert [path.name for path in all_checkpoints(tmp_path / "run")][-1] == "step-000004"
    said = json.loads((tmp_path / "run" / "bad-batch" / "update-000004.json").read_text())
    assert said["not_finite"]["old_logprob_ST"] > 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["health/bad_updates"] == 2
