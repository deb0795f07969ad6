"""model.gradient_checkpointing: layers are computed again in the backward pass, and the gradient stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from empg_cli.agents.alfworld_compact import vocabulary
from empg_cli.learner.update import accumulate_gradient
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import load_policy
from empg_cli.model.policy import Policy
from tests.support.chat import save_chat_model
from tests.support.made import made_trajectories
from tests.support.tiny import tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("model"))


def gradient_and_layer_calls(policy: Policy) -> tuple[torch.Tensor, list[int]]:
    """Of one update's gradient: its values, and how often each layer was begun. (A layer that is computed again may end
    early, when the backward pass has what it needs.)"""
    cfg = tiny_config("algo=dapo", "trainer.tokens_per_microbatch=100000")
    batch = make_batch(made_trajectories([2, 3, 1, 2]), append_only=True)
    batch.credit_S = torch.linspace(-1, 1, batch.num_steps)
    layers = policy.model.model.layers
    calls = [0] * len(layers)

    def count(number: int) -> None:
        calls[number] += 1

    for number, layer in enumerate(layers):
        layer.input_layernorm.register_forward_pre_hook(lambda *_, number=number: count(number))
    policy.model.train()
    accumulate_gradient(policy, batch, torch.arange(batch.num_steps), cfg)
    return torch.cat([parameter.grad.flatten() for parameter in policy.model.parameters()]), calls


def test_it_is_on_where_it_is_asked_for_and_changes_no_gradient(folder: Path) -> None:
    gradients = {}
    for asked in (False, True):
        cfg = tiny_config(
            f"model.gradient_checkpointing={str(asked).lower()}",
            model=("model=qwen2.5-0.5b", f"model.path={folder}", "model.dtype=float32"),
        )
        policy = load_policy(cfg.model, cfg.benchmark.name, seed=0, device=torch.device("cpu"))
        assert [layer.gradient_checkpointing for layer in policy.model.model.layers] == [asked] * 2
        gradients[asked], calls = gradient_and_layer_calls(policy)
        assert calls == [2 if asked else 1] * 2
    assert gradients[False].abs().max() > 1e-4
    torch.testing.assert_close(gradients[True], gradients[False], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("model", ["tiny", "tiny-scratch"])
def test_it_is_on_for_models_that_are_not_read_from_a_path(model: str) -> None:
    cfg = tiny_config("model.gradient_checkpointing=true", model=(f"model={model}",))
    policy = load_policy(cfg.model, cfg.benchmark.name, words=vocabulary(), seed=0, device=torch.device("cpu"))
    assert all(layer.gradient_checkpointing for layer in policy.model.model.layers)
