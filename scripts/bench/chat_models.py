"""Models of the sizes that people train: Qwen2.5's shapes with random weights, and a small chat tokenizer for them.

The tokenizer is byte-level, trained in seconds on ALFWorld's own prompts, so that texts become about as many tokens as
under a real one. It knows a few thousand of the model's tokens; the others decode to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from empg_cli.agents.alfworld_chat import AlfworldChat
from empg_cli.benchmarks import make_benchmark
from made import run_config


@dataclass(frozen=True, slots=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int = 151_936


SHAPES = {
    "qwen2.5-0.5b": Shape(896, 24, 14, 2, 4864),
    "qwen2.5-1.5b": Shape(1536, 28, 12, 2, 8960),
    "small": Shape(128, 2, 4, 2, 256, vocabulary=4096),  # for trying the scripts
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORD_PIECES = 4000


def random_network(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The same weights each time on one kind of device; they are drawn there."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = SHAPES[name]
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.mlp,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with device:
        network: Any = Qwen2ForCausalLM(config)
    return network.to(dtype).eval()


def save_random(name: str, folder: Path, *, device: torch.device, dtype: torch.dtype) -> Path:
    """A model folder as a hub would have it: weights in `dtype`, config, tokenizer with a chat template."""
    network, tokenizer = random_network(name, device, dtype), chat_tokenizer()
    network.config.eos_token_id = tokenizer.eos_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chat_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORD_PIECES,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_prompts(64), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _prompts(games: int) -> Iterator[str]:
    benchmark = make_benchmark(**run_config().benchmark.model_dump())
    for task in benchmark.tasks("train")[:games]:
        yield AlfworldChat().opening(benchmark.make_env(task).reset())
