"""The check at start: it passes what is right, and stops before anything is played what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from empg_cli import config
from empg_cli.errors import UserError
from empg_cli.evaluation.run_eval import run_eval
from empg_cli.loop import train
from empg_cli.model import decoder
from empg_cli.model.attention import POLICY_ATTENTION, use_policy_attention
from empg_cli.model.head import Head
from empg_cli.model.loading import ModelError, load_folder, packaged_agent, without_dropout
from empg_cli.model.policy import Policy
from empg_cli.rollout import parity
from empg_cli.rollout.parity import check_parity
from empg_cli.rollout.torch_engine import reader
from empg_cli.rollout.torch_engine.cache import EpisodeCache
from tests.parity.test_architectures import EXPERTS, MIXED, PLAYED, SHAPE, WINDOW

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "falcon": ({}, "attention in code of its own"),
    "bloom": ({"n_layer": 2, "n_head": 4}, "attention in code of its own"),
    "gptj": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, "attention in code of its own"),
    "gpt_neo": (
        {"attention_types": [[["global", "local"], 1]], "window_size": 6, "num_layers": 2, "num_heads": 4},
        "attention in code of its own",
    ),
    "stablelm": ({}, "do not hand the rollout's cache on"),
    "nemotron": ({"head_dim": 8}, "do not hand the rollout's cache on"),
    "gpt_oss": ({"head_dim": 8, "sliding_window": WINDOW, "layer_types": MIXED, **EXPERTS}, "learned sinks"),
    "phimoe": ({"sliding_window": WINDOW, **EXPERTS}, "sees 6 tokens back"),
    "qwen2_moe": (
        {
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "max_window_layers": 1,
            "shared_expert_intermediate_size": 24,
            **EXPERTS,
        },
        "sees 6 tokens back",
    ),
    "llama4_text": ({"attention_chunk_size": 6, "head_dim": 8, **EXPERTS}, "layers of chunked_attention"),
    "qwen3_next": (
        {
            "head_dim": 8,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            **EXPERTS,
        },
        "layers of linear_attention",
    ),
    "mamba": ({}, "layers of linear_attention"),
}


def network_of(name: str, keys: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**SHAPE | keys)).eval()


def policy_of(name: str) -> Policy:
    network = network_of(name, PLAYED[name])
    for parameter in network.parameters():
        parameter.data.add_(0.15 * torch.randn_like(parameter))
    use_policy_attention(network)
    return Policy(network, None, torch.device("cpu"))


def tiny_agent(dtype: str = "float32") -> Policy:
    folder = str(packaged_agent("alfworld"))
    return load_folder(folder, dtype=dtype, param_dtype="float32", device=torch.device("cpu"))


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_read_is_refused_with_its_reason(name: str) -> None:
    keys, reason = REFUSED[name]
    network = network_of(name, keys)
    with pytest.raises(UserError, match=reason):
        prepared_and_checked(network)


def prepared_and_checked(network: Any) -> None:
    use_policy_attention(network)
    check_parity(Policy(network, None, torch.device("cpu")))


@pytest.mark.parametrize("name", ["gpt2", "starcoder2", "granite"])
def test_a_model_with_dropout_learns_without_and_keeps_its_config(name: str) -> None:
    keys = {"attention_dropout": 0.5} | {
        "gpt2": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5, "n_layer": 2, "n_head": 4, "n_embd": 32},
        "starcoder2": {"residual_dropout": 0.5, "embedding_dropout": 0.5},
        "granite": {},
    }[name]
    network = network_of(name, keys)
    with pytest.raises(ModelError, match="of the passes of training differ from the model's own"):
        prepared_and_checked(network)
    without_dropout(network)
    prepared_and_checked(network)
    assert network.config.attention_dropout == 0.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shipped_agent_passes_and_stays_as_it_was(dtype: str) -> None:
    policy = tiny_agent(dtype)
    weights = [parameter.clone() for parameter in policy.model.parameters()]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    check_parity(policy)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert all(torch.equal(old, new) for old, new in zip(weights, policy.model.parameters(), strict=True))
    assert policy.model.config._attn_implementation == POLICY_ATTENTION


@pytest.mark.parametrize("name", ["granite", "cohere", "phi", "gemma2"])
def test_a_head_without_its_scale_bias_or_cap_is_noticed(name: str) -> None:
    policy = policy_of(name)
    check_parity(policy)
    policy.lm._head = Head(policy.head.weight_VD)
    with pytest.raises(ModelError, match="log-probs and entropies of the rollout differ from the model's own"):
        check_parity(policy)


def test_half_precision_is_noticed_too() -> None:
    policy = policy_of("cohere")
    policy.model.to(torch.bfloat16)
    check_parity(policy)
    policy.lm._head = Head(policy.head.weight_VD)
    with pytest.raises(ModelError, match="of the rollout differ"):
        check_parity(policy)


def test_what_half_precision_would_hide_is_seen_in_the_parameters() -> None:
    """A scale of 1.01 that the model does not apply: lost in bfloat16, not in the float32 parameters behind it."""
    policy = tiny_agent("bfloat16")
    assert policy.masters is not None
    policy.model.config.logit_scale = 1.01
    check_parity(policy)
    policy.masters.network.config.logit_scale = 1.01
    with pytest.raises(ModelError, match="of the rollout differ"):
        check_parity(policy)


def test_a_rollout_that_counts_positions_from_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("gpt2")  # absolute positions; rotary ones would not mind
    plain = reader.positions
    monkeypatch.setattr(reader, "positions", lambda chunks: plain(chunks) + 1)
    with pytest.raises(ModelError, match="of the rollout differ"):
        check_parity(policy)


def test_scoring_that_leaves_the_rotation_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last layer as scoring spells it out; the rollout's own is right."""
    policy = tiny_agent()
    plain = decoder._attended

    def unrotated(module: Any, normed: Tensor, rotary: Any, wanted: Any, source: Any) -> Tensor:
        if not isinstance(source, EpisodeCache):
            rotary = (torch.ones_like(rotary[0]), torch.zeros_like(rotary[1]))
        return plain(module, normed, rotary, wanted, source)

    monkeypatch.setattr(decoder, "_attended", unrotated)
    with pytest.raises(ModelError, match="of the scoring differ"):
        check_parity(policy)


def test_a_model_whose_code_fails_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("llama")
    monkeypatch.setattr(policy.model, "forward", lambda **_: 1 / 0)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM cannot be played.*ZeroDivisionError: division by zero"):
        check_parity(policy)


def test_train_and_eval_check_before_they_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance that no rounding can meet, neither gets as far as a result."""
    monkeypatch.setattr(parity, "TOLERANCE", {torch.float32: 0.0})
    plain = ["trainer.threads=1", "trainer.device=cpu", "logger.console=quiet", "logger.wandb.mode=disabled"]
    with pytest.raises(ModelError, match="Qwen2ForCausalLM is not computed right"):
        train(config.load(plain), tmp_path / "run")
    with pytest.raises(ModelError, match="Qwen2ForCausalLM is not computed right"):
        run_eval(config.load(plain, "eval"), tmp_path / "eval")
    left = [path.name for path in tmp_path.rglob("*")]
    assert "run.json" in left
    assert not {"evaluation.json", "evaluations", "checkpoints"} & set(left)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""
