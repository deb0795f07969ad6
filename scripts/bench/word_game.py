"""A game of words of known size, played by our loop and by TRL's trainer: the same prompts, replies and rewards.

Words are `w0` to `w507`, one token each. The environment answers whatever it is told with words that depend on the task
and the turn alone, so rows are equally long on both sides. The reward is the share of even words in the actions.
Nothing ends a response early: each has exactly `Work.response` tokens.
"""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from empg_cli.agents.agent import Agent
from empg_cli.agents.codec import Codec, CompactCodec
from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Env, Observation, StepResult
from empg_cli.config.schema import Architecture
from empg_cli.model.tiny import ACT, END, scratch_model, word_tokenizer
from empg_cli.types import Task

MODEL = Architecture(hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, mlp_size=384)
VOCABULARY = 512
WORDS = [f"w{number}" for number in range(VOCABULARY - 4)]  # less the four special tokens


@dataclass(frozen=True, slots=True)
class Work:
    """What one update does."""

    turns: int
    response: int
    """Tokens of each response."""
    groups: int = 8
    group_size: int = 8
    prompt: tuple[int, int] = (96, 127)
    """Shortest and longest opening prompt in words; one token more marks where the response begins."""
    reply: tuple[int, int] = (20, 59)

    @property
    def trajectories(self) -> int:
        return self.groups * self.group_size

    @property
    def sampled_tokens(self) -> int:
        return self.trajectories * self.turns * self.response

    @property
    def longest_row(self) -> int:
        return self.prompt[1] + 1 + self.turns * self.response + (self.turns - 1) * (self.reply[1] + 1)


SINGLE_TURN = Work(turns=1, response=32)
MULTI_TURN = Work(turns=8, response=8)


@cache
def tokenizer() -> Any:
    return word_tokenizer(WORDS)


@cache
def model_folder() -> Path:
    """A folder with the model and its tokenizer, both sides' start; the same weights every time."""
    folder = Path(tempfile.mkdtemp(prefix="empg-bench-"))
    atexit.register(shutil.rmtree, folder)
    scratch_model(MODEL, tokenizer(), seed=0).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def prompt_text(work: Work, number: int) -> str:
    return _words(f"prompt/{number}", work.prompt)


def reply_text(work: Work, number: int, turn: int) -> str:
    return _words(f"reply/{number}/{turn}", work.reply)


def even_share(text: str) -> float:
    """The reward of a response."""
    words = text.split()
    return sum(word[-1] in "02468" for word in words) / max(len(words), 1)


def _words(key: str, size: tuple[int, int]) -> str:
    rng = random.Random(key)
    return " ".join(rng.choices(WORDS, k=rng.randint(*size)))


class WordEnv:
    def __init__(self, work: Work, task: Task) -> None:
        self.task, self._work = task, work
        self._turn = 0

    def reset(self) -> Observation:
        return Observation(prompt_text(self._work, self.task.data), ())

    def step(self, action: str) -> StepResult:
        self._turn += 1
        done = self._turn == self._work.turns
        text = "" if done else reply_text(self._work, self.task.data, self._turn)
        reward = even_share(action) / self._work.turns
        return StepResult(text, (), reward=reward, done=done, success=done, score=0.0, valid=True)


class WordBenchmark:
    """Our side's environment."""

    name = "words"
    splits = ("train",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(str(number), "words", split, data=number) for number in range(1024)]

    def make_env(self, task: Task) -> WordEnv:
        return WordEnv(self._work, task)

    def expert(self, env: Env, rng: random.Random | None = None) -> Iterator[str]:
        raise NotImplementedError("the game of words is played by models only")

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "generated"}


class _Wording:
    """Observations as they are."""

    def opening(self, observation: Observation) -> str:
        return observation.text

    def turn(self, action: str, observation: Observation) -> str:
        return observation.text

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        return observation.text

    def parse(self, response: str) -> Parsed:
        return Parsed(response, True)

    def phrase(self, action: str) -> str:
        return action


class _Codec(CompactCodec):
    def turn(self, text: str, *, ended: bool) -> list[int]:
        """Without the closing of a response that did not end: TRL writes none either."""
        return super().turn(text, ended=True)


@cache
def _codec() -> Codec[int]:
    return _Codec(tokenizer())


def word_agent() -> Agent[int]:
    return Agent(_Wording(), _codec(), context="transcript", history=0)


CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message.role == 'assistant' %}"
    "{{ message.content }}{% for call in message.tool_calls or [] %}{{ call.function.name }}"
    "{% for name, value in call.function.arguments.items() %} {{ name }} {{ value }}{% endfor %}{% endfor %} "
    f"{END} "
    "{%- else %}{{ message.content }} {% endif %}"
    "{%- endfor %}"
    f"{{%- if add_generation_prompt %}}{ACT}{{% endif %}}"
)
"""For TRL: the same tokens as `word_agent` writes. It never renders a sampled response; TRL appends token ids."""

RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": ACT,
    "fields": {
        "tool_calls": {
            "content": "text",
            "repeats": True,
            "transform": {"type": "function", "function": {"name": "act", "arguments": {"words": "{content}"}}},
        }
    },
}
"""For TRL: whatever was sampled is one call of the tool `act`."""


def tool_tokenizer() -> Any:
    """The tokenizer with what TRL needs to call tools."""
    words = word_tokenizer(WORDS)
    words.chat_template, words.response_template = CHAT_TEMPLATE, RESPONSE_TEMPLATE
    return words


class ToolEnv:
    """TRL's side of the environment (`environment_factory`): made once, reset for each rollout."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._number = self._turn = 0

    def reset(self, **row: Any) -> None:
        self._number, self._turn = row["number"], 0

    def act(self, words: str) -> str:
        """Say some words.

        Args:
            words: What to say.
        """
        self._turn += 1
        return reply_text(self._work, self._number, self._turn)
