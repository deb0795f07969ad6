"""The shapes that are planned with against the models that transformers makes, and what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from empg_cli.config import load
from empg_cli.config.schema import Lora
from empg_cli.learner.optim import make_optimizer
from empg_cli.model import lora, packed_attention, scoring
from empg_cli.model.attention import AttentionRule, use_policy_attention
from empg_cli.model.decoder import hidden_states
from empg_cli.model.loading import load_policy
from empg_cli.model.norm import fuse_norms
from empg_cli.model.policy import Policy
from empg_cli.planning import memory
from empg_cli.planning.job import EVALUATED_AT_ONCE, Job, adapter_of, job_of
from empg_cli.planning.memory import cache_bytes_of_an_episode, last_layer_saves, layer_saves, standing
from empg_cli.planning.shapes import KNOWN, Shape, shape_of, shape_of_config
from empg_cli.rollout.torch_engine import reader
from empg_cli.rollout.torch_engine.cache import EpisodeCache
from empg_cli.rollout.torch_engine.plans import ChunkPlan
from empg_cli.rollout.torch_engine.reading import Chunk

KNOWN_CONFIG = {"model_type": "llama", "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 80}  # fmt: skip


def network_of(shape: Shape, *, layers: int | None = None) -> Any:
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    pairs: Any = {"qk": (Qwen3Config, Qwen3ForCausalLM), "bias": (Qwen2Config, Qwen2ForCausalLM),
                  "": (LlamaConfig, LlamaForCausalLM)}  # fmt: skip
    config, model = pairs["qk" if shape.has_qk_norm else "bias" if shape.has_qkv_bias else ""]
    sizes = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": layers or shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.mlp,
        "tie_word_embeddings": shape.is_tied,
    }
    if shape.has_qk_norm or not shape.has_qkv_bias:
        sizes["head_dim"] = shape.head_dim
    return model(config(**sizes))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_parameters_are_those_of_the_model(name: str) -> None:
    with torch.device("meta"):
        network = network_of(KNOWN[name])
    assert KNOWN[name].parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_config_file_says_the_same_as_the_table(name: str) -> None:
    with torch.device("meta"):
        config = network_of(KNOWN[name], layers=1).config.to_dict()
    config["num_hidden_layers"] = KNOWN[name].layers
    config.pop("layer_types", None)
    assert shape_of_config(config) == KNOWN[name]


@pytest.mark.parametrize("benchmark", ["alfworld", "webshop", "deepsearch"])
def test_the_shipped_agents_are_known_to_the_last_number(benchmark: str) -> None:
    cfg = load([f"benchmark={benchmark}"])
    shape = shape_of(cfg.model, benchmark)
    policy = load_policy(cfg.model, benchmark, seed=0, device=torch.device("cpu"))
    assert shape is not None and shape.parameters == policy.num_parameters


ROWS, COLUMNS, WANTED = 4, 64, 16
"""Of a pass; `WANTED` tokens of each row are asked for."""
SMALL = {
    "llama": Shape(97, 48, 3, 6, 2, 8, 80, is_tied=True),
    "qwen2": Shape(97, 48, 3, 6, 3, 8, 80, is_tied=False, has_qkv_bias=True),
    "qwen3": Shape(97, 48, 3, 6, 2, 16, 80, is_tied=True, has_qk_norm=True),
}


def job_with(shape: Shape, dtype: torch.dtype = torch.float32) -> Job:
    job = job_of(load(["rollout.max_context_tokens=64"]), "cpu")
    assert job is not None
    size = torch.empty(0, dtype=dtype).element_size()
    return Job(**{name: getattr(job, name) for name in Job.__slots__} | {"shape": shape, "dtype_bytes": size})


def saved_bytes(network: Any) -> int:
    """Of all tensors that autograd keeps in a forward pass over packed rows, each storage once."""
    policy = Policy(network, None, torch.device("cpu"))
    rows = [np.random.default_rng(number).integers(0, 97, COLUMNS) for number in range(ROWS)]
    row_W, column_W = np.repeat(np.arange(ROWS), WANTED), np.tile(np.arange(COLUMNS - WANTED, COLUMNS), ROWS)
    reading = policy.reading(rows, row_W, column_W)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_states(
            network,
            reading.ids_BT,
            wanted=reading.wanted,
            position_ids=reading.position_ids,
            episodes=reading.attention,
        ).sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", sorted(SMALL))
def test_a_layer_keeps_what_is_counted(kind: str, dtype: torch.dtype) -> None:
    """Two more layers keep twice what one does; of the last one only what its chosen tokens need is kept."""
    shape, tokens = SMALL[kind], ROWS * COLUMNS
    kept = {}
    for layers in (1, 3):
        network = network_of(shape, layers=layers).to(dtype)
        use_policy_attention(network)
        fuse_norms(network)
        network.train()
        kept[layers] = saved_bytes(network)
    job = job_with(shape, dtype)
    assert layer_saves(job, tokens) == pytest.approx((kept[3] - kept[1]) / 2, rel=0.03)
    assert last_layer_saves(job, tokens, ROWS * WANTED) == pytest.approx(kept[1], rel=0.15)


@pytest.mark.parametrize("adapter", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"], ["down_proj"], ["k_proj", "o_proj", "up_proj"]])
def test_an_adapter_keeps_what_is_counted(targets: list[str] | None, dtype: torch.dtype, adapter: torch.dtype) -> None:
    """The first layer has nothing before it that trains, so layers 2 and 3 of 4 are what two more keep. A 16th of the
    width as rank adds a few per cent that are not counted."""
    pytest.importorskip("peft")
    shape, tokens, settings = SMALL["qwen3"], ROWS * COLUMNS, Lora(rank=1, alpha=1.0, targets=targets)
    kept = {}
    for layers in (2, 4):
        network = network_of(shape, layers=layers).to(dtype)
        use_policy_attention(network)
        fuse_norms(network)
        lora.attach(network, settings, seed=0, dtype=adapter)
        network.train()
        kept[layers] = saved_bytes(network)
    sizes = {torch.float32: 4, torch.bfloat16: 2}
    job = replace(job_with(shape, dtype), adapter=adapter_of(shape, settings), param_bytes=sizes[adapter])
    assert layer_saves(job, tokens) == pytest.approx((kept[4] - kept[2]) / 2, rel=0.05)


def test_a_column_of_the_cache_takes_what_is_counted() -> None:
    shape = SMALL["qwen2"]
    cache = EpisodeCache(0)
    cache.reserve(slots=2, columns=64)
    cache.aim(ChunkPlan([Chunk(0, 0, 1), Chunk(1, 0, 1)]))
    new = torch.zeros(1, shape.kv_heads, 2, shape.head_dim)
    for layer in range(shape.layers):
        cache.attend(layer, torch.zeros(1, shape.heads, 2, shape.head_dim), new, new, AttentionRule(None))
    held = sum(tensor.nbytes for tensor in (*cache.keys.values(), *cache.values.values()))
    assert held == 2 * cache_bytes_of_an_episode(job_with(shape))


def test_weights_gradients_and_moments_are_those_of_a_real_optimiser() -> None:
    cfg = load([])
    policy = load_policy(cfg.model, "alfworld", seed=0, device=torch.device("cpu"))
    optimizer = make_optimizer(policy, cfg.trainer)
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    job = job_of(cfg, "cpu")
    assert job is not None
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    (update,) = (phase for phase in memory.phases(job) if phase.name == "update")
    assert update.items["optimiser state"] == sum(value.nbytes for value in moments)
    assert update.items["gradients"] == sum(parameter.nbytes for parameter in policy.parameters())
    assert standing(job)["weights"] == sum(parameter.nbytes for parameter in policy.parameters())
    assert standing(job)["reference model"] == standing(job)["weights"]


def test_an_adapter_has_the_numbers_of_pefts() -> None:
    pytest.importorskip("peft")
    cfg = load(["model.lora.rank=4"])
    policy = load_policy(cfg.model, "alfworld", seed=0, device=torch.device("cpu"))
    job = job_of(cfg, "cpu")
    assert job is not None
    assert job.trained == sum(parameter.numel() for parameter in policy.parameters())
    assert "reference model" not in standing(job)


@pytest.mark.parametrize(
    "targets", ["[q_proj,v_proj]", "[self_attn.q_proj,down_proj,q_proj]", "[layers.0.self_attn.q_proj,1.mlp.up_proj]"]
)
def test_an_adapter_on_named_layers_has_the_numbers_of_pefts(targets: str) -> None:
    pytest.importorskip("peft")
    cfg = load(["model.lora.rank=4", f"model.lora.targets={targets}"])
    policy = load_policy(cfg.model, "alfworld", seed=0, device=torch.device("cpu"))
    job = job_of(cfg, "cpu")
    assert job is not None
    assert job.trained == sum(parameter.numel() for parameter in policy.parameters())


def test_an_adapter_on_layers_that_nobody_knows_is_not_planned() -> None:
    assert job_of(load(["model.lora.rank=4", "model.lora.targets=[q_proj,qkv_proj]"]), "cpu") is None


@pytest.mark.parametrize(
    "config",
    [[], "text", None, {}, {"model_type": "llama"}]
    + [KNOWN_CONFIG | {key: value} for key in ("vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size",
                                              "num_key_value_heads", "head_dim")
       for value in (0, -1, float("inf"), float("nan"), "many", [1])
       if value or key not in ("num_key_value_heads", "head_dim")],
    ids=str,
)  # fmt: skip
def test_a_config_that_is_none_is_not_known(config: Any) -> None:
    assert shape_of_config(KNOWN_CONFIG) is not None
    assert shape_of_config(config) is None


def test_what_the_code_allows_itself_is_what_is_planned_with() -> None:
    from empg_cli.evaluation.evaluate import TASKS_AT_ONCE

    assert (memory.CHUNK_BYTES, memory.CPU_CHUNK, memory.KEEP_BYTES) == (
        scoring.CHUNK_BYTES,
        scoring.CPU_CHUNK,
        scoring.KEEP_BYTES,
    )
    assert (memory.MASK_ELEMENTS, memory.TOKENS_AT_ONCE) == (packed_attention.MASK_ELEMENTS, reader.TOKENS_AT_ONCE)
    assert EVALUATED_AT_ONCE == TASKS_AT_ONCE
