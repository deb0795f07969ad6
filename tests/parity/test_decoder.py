"""The last layer at chosen tokens alone, against transformers' own forward pass over all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from empg_cli.model import decoder
from empg_cli.model.attention import POLICY_ATTENTION
from empg_cli.model.batch import make_batch
from empg_cli.model.decoder import has_standard_layers, hidden_states
from empg_cli.model.policy import Policy
from tests.support.tiny import tiny_config, tiny_policy, tiny_rollout

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 8,
}
ROPE = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MODELS = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, rope_parameters=ROPE | {"original_max_position_embeddings": 16})
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
    "sliding qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    ),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, sliding_window=4096)),  # layers of another make
}


def network_of(kind: str) -> Any:
    torch.manual_seed(0)
    network = MODELS[kind]().double().train()
    for parameter in network.parameters():  # norms and biases that start at 1 or 0 would hide mistakes
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    network.set_attn_implementation(POLICY_ATTENTION)
    return network


def theirs(network: Any, ids_BT: Tensor) -> Tensor:
    hidden: Tensor = network.model(input_ids=ids_BT, use_cache=False).last_hidden_state
    return hidden


def places(kind: str) -> tuple[Tensor, Tensor]:
    """Rows and columns in no order, for 3 rows of 20 tokens."""
    match kind:
        case "few":
            pairs = [(2, 7), (0, 0), (0, 19), (2, 3), (2, 4), (1, 10), (0, 5)]
        case "one row":
            pairs = [(1, 19), (1, 2)]
        case _:
            pairs = [(row, column) for column in range(20) for row in (2, 0, 1) if (row, column) != (0, 4)]
    rows, columns = zip(*pairs, strict=True)
    return torch.tensor(rows), torch.tensor(columns)


@pytest.mark.parametrize("chosen", ["few", "one row", "most"])
@pytest.mark.parametrize("kind", MODELS)
def test_values_and_gradients_equal_the_whole_layer(kind: str, chosen: str) -> None:
    network = network_of(kind)
    ids_BT = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(1))
    wanted = places(chosen)
    mix_WD = torch.randn(len(wanted[0]), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = list(network.model.parameters())

    expected_WD = theirs(network, ids_BT)[wanted]
    expected = torch.autograd.grad((mix_WD * expected_WD).sum(), parameters)
    actual_WD = hidden_states(network, ids_BT, wanted=wanted)
    actual = torch.autograd.grad((mix_WD * actual_WD).sum(), parameters)

    torch.testing.assert_close(actual_WD, expected_WD)
    for ours, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, want)


@pytest.mark.parametrize("kind", MODELS)
def test_all_tokens_equal_the_whole_model(kind: str) -> None:
    network = network_of(kind)
    ids_BT = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(hidden_states(network, ids_BT), theirs(network, ids_BT))


def test_a_large_mask_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values when the mask of the last layer would be too large: then all its queries are computed."""
    network, wanted = network_of("qwen2"), places("few")
    ids_BT = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(1))
    with_mask = hidden_states(network, ids_BT, wanted=wanted)
    monkeypatch.setattr(decoder, "MASK_ELEMENTS", 0)
    monkeypatch.setattr(decoder, "_attended", None)  # the way with a mask is not taken
    torch.testing.assert_close(hidden_states(network, ids_BT, wanted=wanted), with_mask)


def test_gradient_checkpointing_changes_nothing_and_covers_the_last_layer() -> None:
    ids_BT, wanted = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(1)), places("few")
    gradients, calls = [], list[bool]()
    for checkpoints in (False, True):
        network = network_of("qwen2")
        if checkpoints:
            network.gradient_checkpointing_enable()
        mlp = network.model.layers[-1].mlp
        mlp.register_forward_pre_hook(lambda *_, checkpoints=checkpoints: calls.append(checkpoints))
        loss = hidden_states(network, ids_BT, wanted=wanted).square().sum()
        gradients.append(torch.autograd.grad(loss, list(network.model.parameters())))
    assert calls == [False, True, True]  # once, and with checkpoints again on the way back
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_nothing_wanted_gives_nothing() -> None:
    none = torch.empty(0, dtype=torch.long)
    assert hidden_states(network_of("qwen2"), torch.ones(2, 5, dtype=torch.long), wanted=(none, none)).shape == (0, 32)


def test_the_shipped_agents_have_standard_layers() -> None:
    assert has_standard_layers(tiny_policy(tiny_config()).model.config)


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_scores_of_a_rollout_equal_the_whole_model(context: str) -> None:
    """`Policy.score` asks for the tokens before the sampled ones; here the whole row is read, step by step."""
    cfg = tiny_config(f"rollout={context}")
    policy: Policy = tiny_policy(cfg)
    batch = make_batch(tiny_rollout(cfg, policy), append_only=context == "transcript")
    rows = list(range(len(batch.row_ids)))[::-1]
    with torch.no_grad():
        logprob_ST, entropy_ST = policy.score(batch, rows, torch.arange(batch.num_steps), temperature=0.7)
        for step in range(batch.num_steps):
            start, count = int(batch.step_start_S[step]), int(batch.mask_ST[step].sum())
            row = batch.row_ids[int(batch.step_row_S[step])]
            logit_TV = policy.model(input_ids=row[None]).logits[0, start - 1 : start - 1 + count] / 0.7
            logp_TV = torch.log_softmax(logit_TV, -1)
            want_T = logp_TV.gather(1, row[start : start + count, None])[:, 0]
            torch.testing.assert_close(logprob_ST[step, :count], want_T, atol=2e-5, rtol=0)
            torch.testing.assert_close(entropy_ST[step, :count], -(logp_TV.exp() * logp_TV).sum(-1), atol=2e-5, rtol=0)


def test_hooks_on_the_last_layer_run() -> None:
    """Sharding gathers a layer's weights in a hook before it and lets them go in one after it."""
    network = network_of("qwen2")
    seen: list[str] = []
    for number, layer in enumerate(network.model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: seen.append(f"before {number}"))
        layer.register_forward_hook(lambda *_, number=number: seen.append(f"after {number}"))
    hidden_states(network, torch.ones(2, 5, dtype=torch.long), wanted=(torch.tensor([0]), torch.tensor([3])))
    assert seen == [f"{when} {number}" for number in range(3) for when in ("before", "after")]
    assert type(network.model.layers[-1]).__name__ == type(network.model.layers[0]).__name__
