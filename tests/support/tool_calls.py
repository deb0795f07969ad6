"""A tiny chat model that calls a tool, and a game to call it in, for trainers that play conversations themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.config.node import BenchmarkSettings
from empg_cli.integrations.tools import ToolEnv, ToolTasks
from empg_cli.types import Task

COLOURS = ("red", "blue", "green", "white")
WAY = ("green", "red")
"""The door that leads on from each room."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>{{ call['function']['name'] }}"
    "{% for name, value in call['function']['arguments'].items() %} {{ name }} {{ value }}{% endfor %}"
    "</tool_call>{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>act command",
            "close": "</tool_call>",
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": "act", "arguments": {"command": "{content}"}}},
        },
        "content": {"close": "<|im_end|>", "content": "text"},
    },
}


class DoorSettings(BenchmarkSettings):
    split: str = "train"
    max_steps: int = 4


class Rooms:
    """Two rooms in a row, each with four doors; one of them leads on, and earns a half. A wrong one costs a step."""

    def __init__(self, task: Task, settings: DoorSettings) -> None:
        self.task, self._settings = task, settings
        self._room = self._steps = 0

    def reset(self) -> Observation:
        return Observation("room 1", ())

    def step(self, action: str) -> StepResult:
        self._steps += 1
        if action == "break":
            raise RuntimeError("the door is stuck")
        passed = action == WAY[self._room]
        self._room += passed
        won = self._room == len(WAY)
        done, score = won or self._steps == self._settings.max_steps, self._room / len(WAY)
        text = "out" if won else f"room {self._room + 1}"
        return StepResult(text, (), passed / len(WAY), done, won, score, valid=action in COLOURS)


class Doors:
    splits = ("train",)

    def __init__(self, settings: DoorSettings) -> None:
        self.name, self._settings = settings.name, settings

    def tasks(self, split: str) -> list[Task]:
        return [Task(str(number), "doors", split) for number in range(8)]

    def make_env(self, task: Task) -> Rooms:
        return Rooms(task, self._settings)

    def expert(self, env: Rooms, rng: random.Random | None = None) -> Iterator[str]:
        yield from WAY

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "generated", "tasks": {"train": 8}}


def doors(**keys: Any) -> ToolTasks:
    return ToolTasks("doors", target=f"{__name__}:Doors", **keys)


def call(command: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "act", "arguments": {"command": command}}}


def conversation(tasks: ToolTasks, commands: Sequence[str]) -> list[dict[str, Any]]:
    """Messages of an episode with these commands, as TRL would write it."""
    env: ToolEnv = tasks.environment()
    (row,) = tasks.rows("train", 1)
    messages = [{"role": "user", "content": row["prompt"][0]["content"] + env.reset(**row)}]
    for command in commands:
        messages.append({"role": "assistant", "content": "", "tool_calls": [call(command)]})
        messages.append({"role": "tool", "name": "act", "content": env.act(command)})
        if env.is_over:
            return [*messages, {"role": "assistant", "content": "bye"}]
    return messages


def tool_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template, fast.response_template = CHAT_TEMPLATE, RESPONSE_TEMPLATE
    return fast


def save_tool_model(folder: Path, *, steps: int = 120, seed: int = 0) -> Path:
    """A model that has learned the form of a call, not which doors to take: it was shown random ones."""
    tasks, rng = doors(), random.Random(seed)
    shown = [conversation(tasks, rng.choices(COLOURS, k=4)) for _ in range(8 * steps)]
    words = [f"act command {colour}" for colour in COLOURS]
    tokenizer = tool_tokenizer(["user assistant tool bye", *words, *(message["content"] for message in shown[0])])
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for number in range(steps):
        texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in shown[8 * number :][:8]]
        rows = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        labels = rows.input_ids.masked_fill(rows.attention_mask == 0, -100)
        model(**rows, labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
