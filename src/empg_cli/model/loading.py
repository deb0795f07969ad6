"""From a model config to a policy: the packaged tiny agents, a Hugging Face model, or random weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from empg_cli.config.schema import Architecture, Model
from empg_cli.errors import DataError, UserError
from empg_cli.model.attention import use_policy_attention
from empg_cli.model.head import head_of
from empg_cli.model.policy import Policy
from empg_cli.model.precision import MasterWeights
from empg_cli.model.tiny import scratch_model, word_tokenizer
from empg_cli.reading.guard import reading
from empg_cli.reading.streams import read_json

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
        case "packaged":
            return load_folder(
                str(_shipped(benchmark)), dtype=model.dtype, param_dtype=model.param_dtype, device=device
            )
        case "scratch":
            arch = model.arch or _shipped_shape(benchmark)
            if words is None:
                raise ModelError(f"benchmark={benchmark} has no compact vocabulary; use a chat model")
            tokenizer = word_tokenizer(words)
            network = scratch_model(arch, tokenizer, seed=seed)
            for parameter in network.parameters():
                parameter.data = parameter.data.to(getattr(torch, model.param_dtype))
            return _policy(network, tokenizer, device, getattr(torch, model.dtype))
        case "pretrained":
            assert model.path is not None, "checked by the schema"
            return load_folder(model.path, dtype=model.dtype, param_dtype=model.param_dtype, device=device)


def with_gradient_checkpointing(policy: Policy, model: Model) -> Policy:
    """A policy that was read from files, with what the config asks for and no file keeps."""
    if model.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable()
    return policy


def load_own(folder: Path, model: Model, device: torch.device) -> Policy:
    """A policy that a run wrote: a checkpoint's, or the one after a warm start."""
    policy = load_folder(str(folder), dtype=model.dtype, param_dtype=model.param_dtype, device=device)
    return with_gradient_checkpointing(policy, model)


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
            tokenizer = _load_tokenizer(path)
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


def _load_tokenizer(path: str) -> Any:
    """The tokenizer as it was saved. AutoTokenizer goes by the model's type where a generic class was saved, and would
    read a word-level vocabulary with Qwen2's byte-pair rules: every word would vanish."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings = Path(path) / "tokenizer_config.json"
    saved_class = read_json(settings).get("tokenizer_class") if settings.is_file() else None
    if saved_class in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        return PreTrainedTokenizerFast.from_pretrained(path)
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def _policy(network: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> Policy:
    try:
        use_policy_attention(network)
        head = head_of(network)
    except UserError as error:
        raise ModelError(f"{error}; choose another model") from error
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


def model_fingerprint(policy: Policy) -> dict[str, Any]:
    """Class, size and a digest of all weights, so that two runs can prove they started from the same policy."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.trained.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {
        "class": type(policy.model).__name__,
        "parameters": policy.num_parameters,
        "vocabulary": len(policy.tokenizer),
        "digest": digest.hexdigest()[:16],
    }
