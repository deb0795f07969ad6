"""A policy that is written to a folder and read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli.model import loading
from empg_cli.model.loading import ModelError, load_folder, reloaded
from empg_cli.model.policy import Policy
from tests.support.tiny import tiny_config, tiny_policy


def test_a_reloaded_policy_rounds_as_the_one_in_memory(tmp_path: Path) -> None:
    """Also for a single row, where the kernel goes by where in memory the weights begin: resuming depends on it."""
    policy = tiny_policy(tiny_config())
    policy.save(tmp_path)
    loaded = load_folder(str(tmp_path), dtype="float32", device=torch.device("cpu"))
    assert all(parameter.data_ptr() % 64 == 0 for parameter in loaded.model.parameters())
    assert loaded.head.weight_VD is loaded.model.get_input_embeddings().weight  # still tied
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        for length in (1, 2, 36):
            ours, theirs = (network.model(ids[:, :length]).logits for network in (policy, loaded))
            assert torch.equal(ours, theirs)


def test_a_policy_is_saved_alike_wherever_it_was_loaded_from(tmp_path: Path) -> None:
    """A run whose warm start comes from the cache has the checkpoints of the run that made it."""
    cfg = tiny_config()
    made = tiny_policy(cfg)
    made.save(tmp_path / "made")
    reloaded(tiny_policy(cfg), tmp_path / "made", cfg.model).save(tmp_path / "again")
    for path in (tmp_path / "made").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_read_again_take_the_place_of_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """A run that goes on has room for one copy. What was copied from the first, the KL term's reference, stays."""
    cfg = tiny_config(f"model.dtype={dtype}", "model.gradient_checkpointing=true")
    initial = tiny_policy(cfg)
    initial.save(tmp_path)
    size, reference = initial.num_parameters, initial.frozen_copy()
    left: list[int] = []
    plain = loading.load_folder

    def load(*arguments: Any, **named: Any) -> Policy:
        left.append(sum(parameter.numel() for parameter in (*initial.parameters(), *initial.model.parameters())))
        return plain(*arguments, **named)

    monkeypatch.setattr(loading, "load_folder", load)
    again = reloaded(initial, tmp_path, cfg.model)
    assert left == [0]
    assert again.num_parameters == reference.num_parameters == size
    assert again.model.is_gradient_checkpointing
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, reference.model(ids).logits)


def renamed(content: bytes) -> bytes:
    """One bit of the name of a weight: transformers would draw that layer anew."""
    return content.replace(b"layers.0.mlp.up", b"mayers.0.mlp.up")


def wider(content: bytes) -> bytes:
    return content.replace(b'"hidden_size": 32', b'"hidden_size": 64')


def one_more(content: bytes) -> bytes:
    tokenizer = json.loads(content)
    word = next(word for word in tokenizer["model"]["vocab"] if word.isalpha())
    tokenizer["model"]["vocab"][word] = 100_000
    return json.dumps(tokenizer).encode()


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("model.safetensors", renamed, r"its weights lack model\.layers\.0\.mlp\.up_proj"),
        ("model.safetensors", lambda content: content[:-40], "cannot load the model"),
        ("model.safetensors", lambda content: b"\xff" * 8 + content[8:], "cannot load the model"),
        ("config.json", lambda content: b"[1]", "cannot load the model"),
        ("config.json", lambda content: b"[" * 100_000, "nested too deep"),
        ("config.json", wider, "cannot load the model"),
        ("tokenizer.json", one_more, r"its tokenizer has an id 100000, its embedding \d+ rows"),
        ("tokenizer.json", lambda content: b'{"a": "\xe9"}', "cannot load the model"),
        ("tokenizer_config.json", lambda content: b"null", "cannot load the model"),
    ],
)
def test_a_model_with_a_damaged_file_is_refused(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], said: str
) -> None:
    tiny_policy(tiny_config()).save(tmp_path)
    content = (tmp_path / name).read_bytes()
    assert damage(content) != content
    (tmp_path / name).write_bytes(damage(content))
    with pytest.raises(ModelError, match=said) as error:
        load_folder(str(tmp_path), dtype="float32", device=torch.device("cpu"))
    assert str(tmp_path) in str(error.value)


def test_models_are_loaded_and_made_in_several_threads(tmp_path: Path) -> None:
    """transformers takes tying out of its classes while it loads; two loads at once left it out for good."""
    cfg = tiny_config()
    tiny_policy(cfg).save(tmp_path)

    def loaded(number: int) -> bool:
        makes = number % 4 == 3
        policy = tiny_policy(cfg) if makes else load_folder(str(tmp_path), dtype="float32", device=torch.device("cpu"))
        return policy.head.weight_VD is policy.model.get_input_embeddings().weight

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(loaded, range(24)))
    assert loaded(0)
    assert loaded(3)
