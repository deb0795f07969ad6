"""Benchmarks as environments of the package `verifiers` (0.1: `MultiTurnEnv`), for its trainers and `vf-eval`.

    from empg_cli.integrations.verifiers import load_environment

    env = load_environment("alfworld", train_games=200)
    env.evaluate_sync(client, model="...", num_examples=20)

verifiers 0.2 and later have no `MultiTurnEnv`; without it, `integrations.chats` offers the same by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from empg_cli.benchmarks.border import EnvironmentFailed, reason_of
from empg_cli.extras import pip_install
from empg_cli.integrations.chats import Chat, Chats

try:
    import verifiers as vf
    from verifiers import MultiTurnEnv
except ImportError:
    raise ImportError(f"this needs verifiers with MultiTurnEnv: {pip_install('verifiers>=0.1.5,<0.2')}") from None

CHAT = "empg_chat"
"""Key of a rollout's state: its episode."""


class BenchmarkEnv(MultiTurnEnv):  # type: ignore[misc]
    """Rows are tasks, replies are in our chat wording, the rubric has our reward (weight 1), success and score."""

    def __init__(
        self, chats: Chats, *, train_split: str, eval_split: str, limit: int | None = None, **more: Any
    ) -> None:
        """
        Args:
            limit: tasks of each split; None = all. Each is opened once for its first message.
            more: for `MultiTurnEnv`.
        """
        self.chats = chats
        super().__init__(
            # Built when first asked for: the other split is seldom needed.
            dataset=partial(_dataset, chats, train_split, limit),
            eval_dataset=partial(_dataset, chats, eval_split, limit),
            rubric=vf.Rubric(funcs=[reward, success, score], weights=[1.0, 0.0, 0.0]),
            max_turns=-1,  # the environment itself ends an episode, after the answer of its last step
            env_id=f"empg-{chats.benchmark.name}",
            **more,
        )

    async def setup_state(self, state: Any) -> None:
        try:
            state[CHAT] = await asyncio.to_thread(self.chats.begin, state["info"])  # other rollouts go on
        except EnvironmentFailed as failed:
            raise vf.Error(reason_of(failed)) from failed

    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        chat: Chat = state[CHAT]
        ended = not state["trajectory"][-1]["is_truncated"]
        try:
            said = await asyncio.to_thread(chat.answer, _text_of(messages[-1]), ended=ended)
        except EnvironmentFailed as failed:
            raise vf.Error(reason_of(failed)) from failed
        reply = [{"role": "user", "content": said}]
        if chat.is_over:
            state["final_env_response"] = reply
        return reply


def load_environment(
    benchmark: str = "alfworld",
    *,
    train_split: str = "train",
    eval_split: str | None = None,
    limit: int | None = None,
    target: str | None = None,
    **keys: Any,
) -> BenchmarkEnv:
    """What `vf-eval` and `verifiers.load_environment` call.

    Args:
        eval_split: None = the benchmark's own `split`.
        limit: tasks of each split; None = all.
        target: package.module:factory of a benchmark from outside (docs/adding-a-benchmark.md).
        keys: settings of the benchmark, as those of conf/benchmark.
    """
    chats = Chats(benchmark, target=target, **keys)
    split = eval_split or chats.settings.split
    return BenchmarkEnv(chats, train_split=train_split, eval_split=split, limit=limit)


async def reward(state: Mapping[str, Any]) -> float:
    """What our training gives."""
    return float(state[CHAT].reward)


async def success(state: Mapping[str, Any]) -> float:
    return float(state[CHAT].success)


async def score(state: Mapping[str, Any]) -> float:
    """The benchmark's own number."""
    return float(state[CHAT].score)


def _dataset(chats: Chats, split: str, limit: int | None) -> Any:
    from datasets import Dataset  # verifiers brings it

    return Dataset.from_list(list(chats.rows(split, limit)))


def _text_of(message: Any) -> str:
    """Of an answer; thoughts that a server has taken out of it stand where our prompts ask for them."""
    content = message["content"] or ""
    text = content if isinstance(content, str) else "".join(part["text"] for part in content if part["type"] == "text")
    thought = message.get("reasoning_content")
    return f"<think>{thought}</think>{text}" if thought and "</think>" not in text else text
