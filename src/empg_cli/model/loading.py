"""From a model config to a policy: the packaged tiny agents, a Hugging Face model, or random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from empg_cli.config.schema import Architecture, Lora, Model
from empg_cli.errors import DataError, UserError
from empg_cli.model import lora
from empg_cli.model.attention import use_policy_attention
from empg_cli.model.construction import ONE_AT_A_TIME
from empg_cli.model.digest import weights_digest
from empg_cli.model.head import head_of
from empg_cli.model.norm import fuse_norms
from empg_cli.model.policy import Policy
from empg_cli.model.precision import MasterWeights
from empg_cli.model.tiny import scratch_model, word_tokenizer
from empg_cli.model.tokenizer import load_tokenizer
from empg_cli.reading.guard import reading

ALIGNMENT = 64
"""Bytes; where torch's own CPU tensors begin."""


class ModelError(DataError):
    """A model cannot be loaded. The message says which, why, and what to do."""


def packaged_agent(benchmark: str) -> Path:
    """Folder of the warm-started tiny agent that ships with empg for a benchmark."""
    return Path(str(files("empg_cli") / "assets" / f"tiny-{benchmark}"))


def load_policy(
    model: Model, benchmark: str, *, words: Sequence[str] | None = None, seed: int, device: torch.device
) -> Policy:
    """Load or make the policy that a run starts from; the same arguments give the same weights.

    Args:
        words: the benchmark's closed vocabulary, read by model.init=scratch; None = it has none.
    """
    return with_gradient_checkpointing(_initial_policy(model, benchmark, words, seed, device), model)


def _initial_policy(
    model: Model, benchmark: str, words: Sequence[str] | None, seed: int, device: torch.device
) -> Policy:
    match model.init:
        case "packaged" | "pretrained" if model.lora.rank:
            policy = _adapted(
                _path(model, benchmark),
                model.lora,
                dtype=model.dtype,
                param_dtype=model.param_dtype,
                seed=seed,
                device=device,
            )
            if policy.param_dtype == policy.dtype:
                return policy
            masters = MasterWeights(policy.model, policy.dtype)
            return replace(policy, model=masters.computing, masters=masters)
        case "packaged" | "pretrained":
            path = _path(model, benchmark)
            return load_folder(path, dtype=model.dtype, param_dtype=model.param_dtype, device=device)
        case "scratch":
            arch = model.arch or _shipped_shape(benchmark)
            if words is None:
                raise ModelError(f"benchmark={benchmark} has no compact vocabulary; use a chat model")
            tokenizer = word_tokenizer(words)
            network = scratch_model(arch, tokenizer, seed=seed)
            for parameter in network.parameters():
                parameter.data = parameter.data.to(getattr(torch, model.param_dtype))
            return _policy(network, tokenizer, device, getattr(torch, model.dtype))


def _path(model: Model, benchmark: str) -> str:
    """Where the initial weights are."""
    return model.path if model.path is not None else str(_shipped(benchmark))


def _adapted(path: str, settings: Lora, *, dtype: str, param_dtype: str, seed: int, device: torch.device) -> Policy:
    """A new adapter, kept in `param_dtype`, on the frozen weights in `path`."""
    policy = load_folder(path, dtype=dtype, device=device)
    base = lora.Base(path, dtype, weights_digest(policy.model))
    lora.attach(policy.model, settings, seed=seed, dtype=getattr(torch, param_dtype))
    return replace(policy, base=base)


def with_gradient_checkpointing(policy: Policy, model: Model) -> Policy:
    """A policy that was read from files, with what the config asks for and no file keeps."""
    if model.gradient_checkpointing:
        # The other kind finds nothing to train in a layer whose input needs no gradient: the first one above frozen
        # embeddings.
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    return policy


def reloaded(policy: Policy, folder: Path, model: Model) -> Policy:
    """The policy with weights that it, or one like it, has saved: a checkpoint's, or those after a warm start.

    Two of them never exist at a time: those of `policy` are gone when others are read, and with them `policy`.
    """
    if policy.base is not None:
        lora.load(policy.trained, policy.base, folder)
        if policy.masters is not None:
            policy.masters.refresh()
        return policy
    policy.release()
    saved = load_folder(str(folder), dtype=model.dtype, param_dtype=model.param_dtype, device=policy.device)
    return with_gradient_checkpointing(saved, model)


def load_to_play(folder: Path, model: Model, benchmark: str, device: torch.device) -> Policy:
    """A policy that a run wrote, in the compute type alone.

    Raises:
        ModelError: it cannot be read, or the weights below an adapter are not those that it was trained on.
    """
    if not lora.is_adapter(folder):
        return load_folder(str(folder), dtype=model.dtype, device=device)
    policy = load_adapter(folder, model, benchmark, device)
    assert policy.base is not None, "it has an adapter"
    lora.convert(policy.model, policy.base, getattr(torch, model.dtype))
    return policy


def load_adapter(folder: Path, model: Model, benchmark: str, device: torch.device) -> Policy:
    """An adapter that a run wrote, in float32, on the weights that the config names, in the type that they had."""
    settings, dtype = lora.saved_settings(folder), lora.saved_base(folder).dtype
    policy = _adapted(_path(model, benchmark), settings, dtype=dtype, param_dtype="float32", seed=0, device=device)
    assert policy.base is not None, "it has an adapter"
    lora.load(policy.model, policy.base, folder)
    return policy


def _shipped(benchmark: str) -> Path:
    folder = packaged_agent(benchmark)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"no tiny agent for benchmark={benchmark} ships with this empg; "
            "train one with model=tiny-scratch trainer.warm_start.steps=2000"
        )
    return folder


def _shipped_shape(benchmark: str) -> Architecture:
    config = json.loads((_shipped(benchmark) / "config.json").read_text())
    return Architecture(
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        mlp_size=config["intermediate_size"],
    )


def load_folder(path: str, *, dtype: str, device: torch.device, param_dtype: str | None = None) -> Policy:
    """A Hugging Face model and tokenizer from a folder or a hub id; weights only as safetensors, no remote code.

    Args:
        dtype: what passes compute in.
        param_dtype: what parameters are kept in; None = `dtype`, for a policy that is not trained.

    Raises:
        ModelError: there is none, a file of it is damaged, or a weight is missing (transformers would draw it anew).
    """
    from transformers import AutoModelForCausalLM

    try:
        with reading(f"cannot load the model {path!r}"):
            tokenizer = load_tokenizer(path)
            with ONE_AT_A_TIME:
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    path,
                    dtype=getattr(torch, param_dtype or dtype),
                    trust_remote_code=False,
                    use_safetensors=True,
                    attn_implementation="sdpa",
                    output_loading_info=True,
                )
            network, found = loaded
            _refuse_unlike(network, tokenizer, found)
    except DataError as error:
        raise ModelError(
            f"{error}\n"
            "give a folder with config.json, tokenizer and safetensors weights in model.path, or a hub id with network"
        ) from error
    return _policy(network, tokenizer, device, getattr(torch, dtype))


def _refuse_unlike(network: Any, tokenizer: Any, found: Mapping[str, Any]) -> None:
    """What belongs together fits together."""
    if lacking := sorted([*found["missing_keys"], *map(str, found["mismatched_keys"])]):
        raise ValueError(f"its weights lack {lacking[0]}" + (f" and {len(lacking) - 1} more" if lacking[1:] else ""))
    last, rows = max(tokenizer.get_vocab().values()), network.get_input_embeddings().weight.shape[0]
    if last >= rows:
        raise ValueError(f"its tokenizer has an id {last}, its embedding {rows} rows")


def _policy(network: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> Policy:
    try:
        use_policy_attention(network)
        head = head_of(network)
    except UserError as error:
        raise ModelError(f"{error}; choose another model") from error
    fuse_norms(network)
    without_dropout(network)
    network = network.to(device).eval()
    for parameter in network.parameters():
        # Weights mapped from a safetensors file begin at any byte, and a CPU's product with a single row then rounds
        # differently: a run would change by its last bits when it is resumed.
        if parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()
    if head.weight_VD.dtype == dtype:
        return Policy(network, tokenizer, device)
    masters = MasterWeights(network, dtype)
    return Policy(masters.computing, tokenizer, device, masters)


def without_dropout(network: torch.nn.Module) -> None:
    """Of modules and of the numbers that attention reads.

    With it the policy that learns is not the one that has sampled, even before the first step, the gradient depends on
    how a batch is split, and a resume draws other numbers. The model's configuration keeps what it says.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def check_context(policy: Policy, max_context_tokens: int) -> None:
    """Refuse a context longer than the positions that the model knows."""
    positions = getattr(policy.model.config, "max_position_embeddings", None)
    if positions is not None and max_context_tokens > positions:
        raise ModelError(
            f"rollout.max_context_tokens={max_context_tokens} is more than the {positions} positions of this model; "
            f"set rollout.max_context_tokens={positions} or less"
        )


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA device if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"trainer.device={name} cannot be used here: {str(error).partition(chr(10))[0]}") from error
    return device


def device_type(name: str) -> str:
    """cpu or cuda, without a look at the device: the first look takes memory of the first GPU."""
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def model_fingerprint(policy: Policy) -> dict[str, Any]:
    """Class, size and a digest of all weights, so that two runs can prove they started from the same policy.

    `base`, where there is an adapter: the digest of the weights below.
    """
    base = policy.base
    return {
        "class": type(policy.model).__name__,
        "parameters": policy.num_parameters,
        "vocabulary": len(policy.tokenizer),
        "digest": weights_digest(policy.trained) if base is None else lora.digest_of(policy.trained, base),
        **({} if base is None else {"base": base.digest}),
    }
