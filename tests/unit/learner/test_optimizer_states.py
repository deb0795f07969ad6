"""trainer.optimizer=adamw8bit: AdamW with moments of 8 bits, which a run keeps over a resume."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from empg_cli.errors import UserError
from empg_cli.experiment import open_experiment
from empg_cli.learner.checkpoint import load_optimizer, save_checkpoint
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import accumulate_gradient
from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.runs.checkpoint import TrainState
from tests.support.made import made_trajectories
from tests.support.tiny import tiny_config, tiny_policy

bitsandbytes = pytest.importorskip(
    "bitsandbytes", reason="bitsandbytes is not installed (pip install empg-cli[bitsandbytes])"
)

WIDE = (
    "algo.loss.kl_coef=0",
    "model.arch.hidden_size=64",
    "model.arch.mlp_size=96",
    "trainer.lr=1e-3",
    "trainer.weight_decay=0.01",
)
SHORT = tiny_config(*WIDE, "trainer.optimizer=adamw8bit")
LONG = tiny_config(*WIDE)


def steps(policy: Policy, optimizer: torch.optim.Optimizer, count: int) -> None:
    batch = make_batch(made_trajectories([2, 3, 1, 2]), append_only=True)
    batch.credit_S = torch.linspace(-1, 1, batch.num_steps)
    for _ in range(count):
        accumulate_gradient(policy, batch, torch.arange(batch.num_steps), SHORT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def flat(policy: Policy) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def test_large_tensors_have_moments_of_8_bits_and_small_ones_of_32() -> None:
    policy = tiny_policy(SHORT)
    optimizer = make_optimizer(policy, SHORT.trainer)
    steps(policy, optimizer, 1)
    kinds = {(p.numel() >= 4096, optimizer.state[p]["state1"].dtype, optimizer.state[p]["state2"].dtype)
             for p in policy.parameters()}  # fmt: skip
    assert kinds == {(True, torch.uint8, torch.uint8), (False, torch.float32, torch.float32)}


def test_a_few_steps_are_those_of_adamw_within_a_few_per_cent() -> None:
    """Of the way that the weights go."""
    start = flat(tiny_policy(LONG))
    ways = []
    for cfg in (LONG, SHORT):
        policy = tiny_policy(cfg)
        steps(policy, make_optimizer(policy, cfg.trainer), 8)
        ways.append(flat(policy) - start)
    assert ways[0].norm() > 0.1
    assert (ways[1] - ways[0]).norm() < 0.1 * ways[0].norm()
    assert not torch.equal(*ways)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    cfg = tiny_config(*WIDE, "trainer.optimizer=adamw8bit", f"model.dtype={dtype}")
    policy = tiny_policy(cfg)
    optimizer = make_optimizer(policy, cfg.trainer)
    steps(policy, optimizer, 3)
    folder = save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=1)
    assert folder is not None
    again = tiny_policy(cfg)
    again.trained.load_state_dict(policy.trained.state_dict())
    if again.masters is not None:
        again.masters.refresh()
    resumed = make_optimizer(again, cfg.trainer)
    load_optimizer(folder, resumed, again)
    steps(policy, optimizer, 3)
    steps(again, resumed, 3)
    assert torch.equal(flat(policy), flat(again))
    computing = [parameter.float() for parameter in policy.model.parameters()]
    assert torch.equal(torch.cat([p.flatten() for p in computing]), flat(policy).to(getattr(torch, dtype)).float())


def test_the_state_is_a_quarter_of_adamws(tmp_path: Path) -> None:
    sizes = []
    for number, cfg in enumerate((LONG, SHORT)):
        policy = tiny_policy(cfg)
        optimizer = make_optimizer(policy, cfg.trainer)
        steps(policy, optimizer, 1)
        held = [v for s in optimizer.state.values() for k, v in s.items() if torch.is_tensor(v) and "qmap" not in k]
        sizes.append(sum(v.numel() * v.element_size() for v in held))
        assert number == 0 or sizes[1] < 0.35 * sizes[0]  # small tensors and scales included


def test_without_the_package_one_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    message = r"trainer.optimizer=adamw8bit needs the package bitsandbytes: .*install.*\[bitsandbytes\]"
    with pytest.raises(UserError, match=message), open_experiment(SHORT, tmp_path / "run"):
        pass
