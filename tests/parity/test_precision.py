"""float32 parameters behind bfloat16 passes: they move as if passes were float32 too, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from empg_cli.agents.alfworld_compact import vocabulary
from empg_cli.config.location import conf_dir
from empg_cli.config.schema import Model
from empg_cli.learner.checkpoint import load_optimizer, save_checkpoint
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import accumulate_gradient
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import load_folder, load_policy
from empg_cli.model.policy import Policy
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.checkpoint import TrainState
from empg_cli.runs.config_file import saved_values
from empg_cli.types import Batch, Step, Task, Trajectory
from tests.support.tiny import tiny_config
from tests.support.turns import Turns

CFG = tiny_config("trainer.lr=1e-6", "algo.loss.kl_coef=0", "trainer.weight_decay=0")
STEPS = 50


def policy_in(dtype: str, param_dtype: str = "float32") -> Policy:
    model = CFG.model.model_copy(update={"dtype": dtype, "param_dtype": param_dtype})
    return load_policy(model, "alfworld", words=vocabulary(), seed=0, device=torch.device("cpu"))


def batch_of(policy: Policy) -> Batch:
    """Eight episodes of two steps of arbitrary tokens, with credits of both signs, scored by the policy itself."""
    generator = torch.Generator().manual_seed(0)

    def ids(size: int) -> list[int]:
        return torch.randint(4, len(policy.tokenizer), (size,), generator=generator).tolist()

    trajectories = [Trajectory(Task("t", "k", "train"), number // 4, number % 4) for number in range(8)]
    for trajectory in trajectories:
        trajectory.steps = [Step(ids(9 + turn), ids(4), [0.0] * 4, [0.0] * 4) for turn in range(2)]
    batch = make_batch(trajectories, append_only=True)
    batch.credit_S = torch.randn(batch.num_steps, generator=generator)
    with torch.no_grad():
        batch.old_logprob_ST, _ = policy.score(batch, range(8), torch.arange(batch.num_steps), temperature=1.0)
    return batch


def step(policy: Policy, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    terms = accumulate_gradient(policy, batch, torch.arange(batch.num_steps), CFG)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return terms["actor/pg_loss"]


def surrogate(weights: dict[str, Tensor], batch: Batch) -> float:
    """Mean credit times log-prob under these weights in float32: what the loss raises."""
    judge = policy_in("float32")
    judge.model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    with torch.no_grad():
        logprob_ST, _ = judge.score(batch, range(8), torch.arange(batch.num_steps), temperature=1.0)
    return float((batch.credit_S[:, None] * logprob_ST).sum())


def trained(dtype: str, param_dtype: str) -> tuple[float, float, float]:
    """Share of the weights that moved, their mean displacement, and the gain of the surrogate, after STEPS steps."""
    policy = policy_in(dtype, param_dtype)
    batch = batch_of(policy)
    before = {name: weight.clone() for name, weight in policy.trained.state_dict().items()}
    optimizer = make_optimizer(policy, CFG.trainer)
    for _ in range(STEPS):
        step(policy, optimizer, batch)
    after = policy.trained.state_dict()
    moved = torch.cat([(after[name].float() - before[name].float()).flatten() for name in before]).abs()
    gain = surrogate(after, batch) - surrogate(before, batch)
    return float((moved > 0).float().mean()), float(moved.mean()), gain


def test_weights_move_as_in_float32() -> None:
    share, displacement, gain = trained("bfloat16", "float32")
    share32, displacement32, gain32 = trained("float32", "float32")
    share16, displacement16, _ = trained("bfloat16", "bfloat16")
    assert share == pytest.approx(share32, rel=0.05) and share32 > 0.8
    assert displacement == pytest.approx(displacement32, rel=0.05)
    assert gain == pytest.approx(gain32, rel=0.05) and gain32 > 0
    assert share16 < 0.1 and displacement16 < displacement32 / 2  # the fault, so that the test can see it


def test_gradients_add_up_in_float32() -> None:
    """Over micro-batches: the parameters' gradient is the float32 sum of what each backward pass gives."""
    policy = policy_in("bfloat16")
    batch = batch_of(policy)
    cfg = CFG.model_copy(update={"trainer": CFG.trainer.model_copy(update={"tokens_per_microbatch": 64})})
    accumulate_gradient(policy, batch, torch.arange(batch.num_steps), cfg)
    total = [parameter.grad for parameter in policy.parameters()]
    assert all(grad is not None and grad.dtype == torch.float32 for grad in total)
    assert all(parameter.grad is None for parameter in policy.model.parameters())
    whole = policy_in("float32")
    accumulate_gradient(whole, batch, torch.arange(batch.num_steps), CFG)
    ours, theirs = (
        torch.cat([parameter.grad.flatten() for parameter in one.parameters()])
        for one in (policy, whole)  # type: ignore[union-attr]
    )
    assert float((ours - theirs).norm() / theirs.norm()) < 0.05


def test_passes_and_rollouts_read_the_weights_of_the_last_step() -> None:
    policy = policy_in("bfloat16")
    batch = batch_of(policy)
    optimizer = make_optimizer(policy, CFG.trainer.model_copy(update={"lr": 1e-2}))

    def first_logprob() -> float:
        session = Turns(TorchEngine(policy, []), 1, append_only=True)
        return session.respond([[5, 6, 7]], [torch.zeros(1).numpy()], max_new_tokens=1, temperature=1.0)[0].logprobs[0]

    before, _ = first_logprob(), step(policy, optimizer, batch)
    assert first_logprob() != before
    for kept, used in zip(policy.parameters(), policy.model.parameters(), strict=True):
        assert used.dtype == torch.bfloat16
        assert torch.equal(used, kept.to(torch.bfloat16))
    assert policy.model.get_input_embeddings().weight is policy.head.weight_VD  # still tied


def test_the_reference_scores_as_the_policy_does() -> None:
    policy = policy_in("bfloat16")
    batch = batch_of(policy)
    reference = policy.frozen_copy()
    assert reference.masters is None
    with torch.no_grad():
        again, _ = reference.score(batch, range(8), torch.arange(batch.num_steps), temperature=1.0)
    assert torch.equal(again, batch.old_logprob_ST)
    step(policy, make_optimizer(policy, CFG.trainer.model_copy(update={"lr": 1e-2})), batch)
    with torch.no_grad():
        assert torch.equal(reference.score(batch, range(8), torch.arange(16), temperature=1.0)[0], again)


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Checkpoints keep the float32 parameters."""
    policy = policy_in("bfloat16")
    batch, trainer = batch_of(policy), CFG.trainer.model_copy(update={"lr": 1e-3})
    optimizer = make_optimizer(policy, trainer)
    step(policy, optimizer, batch)
    folder = save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=1)
    assert folder is not None
    resumed = load_folder(str(folder / "model"), dtype="bfloat16", param_dtype="float32", device=torch.device("cpu"))
    again = make_optimizer(resumed, trainer)
    load_optimizer(folder, again, resumed)
    assert step(policy, optimizer, batch) == step(resumed, again, batch)
    for straight, loaded in zip(policy.parameters(), resumed.parameters(), strict=True):
        assert straight.dtype == loaded.dtype == torch.float32
        assert torch.equal(straight, loaded)
    shorter = load_folder(str(folder / "model"), dtype="bfloat16", device=torch.device("cpu"))  # an export
    shorter.save(tmp_path / "export")
    assert shorter.masters is None and shorter.param_dtype == torch.bfloat16


def test_one_type_needs_no_second_copy() -> None:
    for dtype in ("float32", "bfloat16"):
        policy = policy_in(dtype, dtype)
        assert policy.masters is None and policy.trained is policy.model


def test_gradient_checkpointing_changes_no_gradient() -> None:
    grads: list[list[Any]] = []
    for checkpoints in (False, True):
        policy = policy_in("bfloat16")
        batch = batch_of(policy)
        policy.model.train()
        if checkpoints:
            policy.model.gradient_checkpointing_enable()
        accumulate_gradient(policy, batch, torch.arange(batch.num_steps), CFG)
        grads.append([parameter.grad for parameter in policy.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed, atol=1e-6, rtol=1e-2)


def test_every_model_preset_keeps_float32_parameters() -> None:
    presets = sorted((conf_dir() / "model").glob("*.yaml"))
    assert len(presets) >= 8
    for preset in presets:
        assert yaml.safe_load(preset.read_text())["model"]["param_dtype"] == "float32", preset.name


def test_parameters_are_never_shorter_than_passes() -> None:
    values = CFG.model.model_dump() | {"param_dtype": "bfloat16"}
    with pytest.raises(ValueError, match="param_dtype must be float32 when dtype=float32"):
        Model.model_validate(values)
    assert Model.model_validate(values | {"dtype": "bfloat16"}).param_dtype == "bfloat16"


def test_a_run_from_before_kept_its_parameters_in_the_compute_type(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {name: old, dtype: bfloat16}\n")
    assert saved_values(tmp_path)["model"]["param_dtype"] == "bfloat16"
