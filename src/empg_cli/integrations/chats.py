"""A benchmark as conversations, for tools that play them with a model of their own: our wording, parsing and reward.

What is said and scored is what `empg eval endpoint=openai rollout=transcript` says and scores: the same code does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from empg_cli.agents.agent import Agent, wording_maker
from empg_cli.agents.messages import Message, MessageCodec
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.border import begin, step_in_place
from empg_cli.integrations.playing import opened, rules_of
from empg_cli.rollout.engine import Completion
from empg_cli.rollout.episode import EpisodeRules, settle, understood
from empg_cli.types import Step, Task


class Chats:
    """The tasks of one benchmark, and conversations about them."""

    def __init__(self, benchmark: str, *, target: str | None = None, **keys: Any) -> None:
        """
        Args:
            benchmark: alfworld, webshop, deepsearch, or that of an installed package's.
            target: package.module:factory of a benchmark from outside (docs/adding-a-benchmark.md).
            keys: settings of the benchmark, as those of conf/benchmark.
        """
        self.benchmark, self.settings = opened(benchmark, target=target, **keys)
        self._make_wording = wording_maker(self.settings, "chat", self.benchmark)
        self._rules = rules_of(self.settings)

    def rows(self, split: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """A row a task: `prompt`, the messages that begin its conversation, and `info`, which finds it again."""
        for number, task in enumerate(self.benchmark.tasks(split)[:limit]):
            about = {"split": split, "number": number, "task_id": task.task_id, "kind": task.kind}
            yield {"prompt": [{"role": "user", "content": self.begin(about).said}], "info": about}

    def begin(self, info: Mapping[str, Any]) -> Chat:
        """
        Args:
            info: of a row.

        Raises:
            EnvironmentFailed: its environment cannot be made.
        """
        task = self.benchmark.tasks(info["split"])[info["number"]]
        agent = Agent(self._make_wording(), MessageCodec(), context="transcript", history=0)
        return Chat(self.benchmark, task, agent, self._rules)


class Chat:
    """One episode. `said` is what the model is to answer; at the end, what the environment said last."""

    def __init__(self, benchmark: Any, task: Task, agent: Agent[Message], rules: EpisodeRules) -> None:
        self.task, self._agent, self._rules = task, agent, rules
        self._env, observation = begin(benchmark, task)
        self._prompt = agent.start(observation)
        self.said = agent.codec.decode(self._prompt)
        self.steps: list[Step] = []
        self.is_over = self.success = False
        self.score = 0.0

    @property
    def reward(self) -> float:
        """What our training gives: the environment's rewards, less what invalid actions cost."""
        return sum(step.reward for step in self.steps)

    def answer(self, text: str, *, ended: bool = True) -> str:
        """Take a model's answer; returns `said`.

        Args:
            ended: the model ended it itself, no limit cut it.

        Raises:
            EnvironmentFailed: the episode cannot go on, and has no score.
        """
        completion = Completion([Message("assistant", text)], [], None, ended, policy_version=0)
        _, step = understood(self._agent, self._prompt, completion)
        self.steps.append(step)
        result = step_in_place(self._env, step.action)
        settle(step, result, self._rules)
        self.is_over, self.success, self.score = result.done, result.success, result.score
        if result.done:
            self.said = result.text
        else:
            observation = Observation(result.text, result.actions)
            self._prompt = self._agent.next_prompt(step.action, observation, ended=ended)
            self.said = self._agent.codec.decode(self._prompt)
        return self.said
