"""A benchmark as objects with one tool, `act`, for trainers that play conversations themselves.

The form is that of TRL's `environment_factory`; nothing of TRL is needed here. The reward is ours: what settles it is
what settles that of our own rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from empg_cli.agents.plain import with_actions
from empg_cli.benchmarks.base import Env
from empg_cli.benchmarks.border import EnvironmentFailed, begin, reason_of, step_in_place
from empg_cli.integrations.playing import opened, rules_of, task_of_row
from empg_cli.rollout.episode import EpisodeRules, settle
from empg_cli.types import Step

OPENING = (
    "You act in an environment by calling the tool `act`, one command a call, until it says that the episode is over."
    "\n\n"
)
OVER = "The episode is over."


class ToolTasks:
    """The tasks of one benchmark, and environments that play them by tool calls.

    GRPOTrainer(train_dataset=Dataset.from_list(list(tasks.rows("train"))), environment_factory=tasks.environment, ...)
    """

    def __init__(self, benchmark: str, *, target: str | None = None, **keys: Any) -> None:
        """
        Args:
            benchmark: alfworld, webshop, deepsearch, or that of an installed package's.
            target: package.module:factory of a benchmark from outside (docs/adding-a-benchmark.md).
            keys: settings of the benchmark, as those of conf/benchmark.

        Raises:
            ConfigError: a key is unknown, or a value is out of range.
            ValueError: there is no such benchmark.
        """
        self.benchmark, self.settings = opened(benchmark, target=target, **keys)
        self._rules = rules_of(self.settings)

    def rows(self, split: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """A row a task: `prompt`, to which the trainer adds what `ToolEnv.reset` returns, and `info`, for `reset`."""
        for number, task in enumerate(self.benchmark.tasks(split)[:limit]):
            info = {"split": split, "number": number, "task_id": task.task_id, "kind": task.kind}
            yield {"prompt": [{"role": "user", "content": OPENING}], "info": info}

    def environment(self) -> ToolEnv:
        return ToolEnv(self.benchmark, self._rules)


class ToolEnv:
    """One episode at a time; `reset` begins the next. Of its public methods, `act` alone is a tool.

    `is_over`, `success` and `score` are the benchmark's, for reward functions that are given `environments`.
    """

    def __init__(self, benchmark: Any, rules: EpisodeRules) -> None:
        self._benchmark, self._rules = benchmark, rules
        self._env: Env | None = None
        self.steps: list[Step] = []
        self.is_over = self.success = False
        self.score = 0.0
        self.error: str | None = None
        """Why the environment cannot go on; such an episode has no reward."""

    def reset(self, info: Mapping[str, Any], **_: Any) -> str:
        """Begin the task of a row of `ToolTasks.rows`; what the environment shows.

        Args:
            info: of the row.
        """
        self._env, self.error = None, None
        self.steps, self.is_over, self.success, self.score = [], False, False, 0.0
        task = task_of_row(self._benchmark, info["split"], info["number"], info["task_id"])
        try:
            self._env, observation = begin(self._benchmark, task)
        except EnvironmentFailed as failed:
            return self._fail(failed)
        return with_actions(observation.text, observation.actions)

    def act(self, command: str) -> str:
        """Do one thing in the environment, and see what comes of it.

        Args:
            command: What to do, in the environment's own words.
        """
        if self.is_over or self._env is None:
            return OVER
        step = Step(prompt_ids=[], response_ids=[], logprobs=[], entropies=[], action=str(command))
        try:
            result = step_in_place(self._env, step.action)
        except EnvironmentFailed as failed:
            return self._fail(failed)
        settle(step, result, self._rules)
        self.steps.append(step)
        self.is_over, self.success, self.score = result.done, result.success, result.score
        return f"{result.text}\n\n{OVER}" if result.done else with_actions(result.text, result.actions)

    def get_reward(self) -> float | None:
        """What our training gives: the environment's rewards, less what refused actions cost under
        `invalid_action_scope=admissible`. None where the environment failed, so that the episode counts nowhere."""
        return None if self.error else sum(step.reward for step in self.steps)

    def _fail(self, failed: EnvironmentFailed) -> str:
        self.is_over, self.error = True, reason_of(failed)
        return OVER


def success(environments: list[ToolEnv], **_: Any) -> list[float | None]:
    """The benchmark's own yes or no, as a reward function; with weight 0 it is logged and trains nothing."""
    return [None if env.error else float(env.success) for env in environments]
