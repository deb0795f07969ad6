"""The tiny agent: a small Qwen2 model and a word-level tokenizer, made by the classes that make the big ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from empg_cli.config.schema import Architecture
from empg_cli.model.construction import ONE_AT_A_TIME

MAX_POSITIONS = 4096
ACT = "<act>"
"""Ends a prompt; the response follows."""
END = "<end>"
"""Ends a response."""
PAD, UNKNOWN = "<pad>", "<unk>"


def word_tokenizer(words: Sequence[str]) -> Any:
    """One token per whitespace-separated word of a closed vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, UNKNOWN, ACT, END]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*special, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, additional_special_tokens=[ACT]
    )


def scratch_model(arch: Architecture, tokenizer: Any, *, seed: int) -> Any:
    """A randomly initialised Qwen2 causal language model with tied embeddings; same seed, same weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=arch.hidden_size,
        num_hidden_layers=arch.num_layers,
        num_attention_heads=arch.num_heads,
        num_key_value_heads=arch.num_kv_heads,
        intermediate_size=arch.mlp_size,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        use_sliding_window=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
