"""Benchmarks as Gymnasium environments: observations and actions are texts, as the benchmark writes and reads them.

import gymnasium
from empg_cli.integrations.gymnasium import register

register()
env = gymnasium.make("empg/alfworld-v0", split="valid_seen")
text, info = env.reset(seed=0, options={"task": 3})
text, reward, terminated, truncated, info = env.step(info["actions"][0])
"""

from __future__ import annotations

import operator
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, SupportsIndex

from empg_cli.benchmarks.base import Env, Observation, StepResult
from empg_cli.benchmarks.border import EnvironmentFailed, begin, step_in_place
from empg_cli.extras import install_command
from empg_cli.integrations.playing import OURS, opened
from empg_cli.types import Task

try:
    import gymnasium
    from gymnasium.spaces import Text
except ImportError:
    raise ImportError(f"this needs the package gymnasium: {install_command('gymnasium')}") from None

NAMESPACE = "empg"
LONGEST_OBSERVATION = 1_000_000
"""Characters; Gymnasium's text spaces need a bound, and no page of ours comes near it."""
LONGEST_ACTION = 10_000
_SAMPLED = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")


class AnyText(Text):  # type: ignore[misc]
    """Texts of any characters: Gymnasium's own space has those of a list, which web pages do not keep to. What it
    samples is printable ASCII, and no longer than 20 characters."""

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset=_SAMPLED)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        if mask is None and probability is None:
            mask = (int(self.np_random.integers(1, 1 + min(20, self.max_length))), None)
        return str(super().sample(mask, probability))


class TextEnv(gymnasium.Env[str, str]):  # type: ignore[misc]
    """One benchmark. Each reset plays one task of a split, a drawn one where `options["task"]` names none.

    `info` has `task_id`, `kind`, `actions` (what can be done now), and after a step `valid`, `success`, `score`, and
    what the benchmark says of how the episode stands. An episode that the step limit ends is truncated, any other
    terminated.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(
        self,
        benchmark: str = "alfworld",
        *,
        split: str = "train",
        render_mode: str | None = None,
        target: str | None = None,
        **keys: Any,
    ) -> None:
        """
        Args:
            benchmark: alfworld, webshop, deepsearch, or that of an installed package's.
            split: whose tasks are played.
            target: package.module:factory of a benchmark from outside (docs/adding-a-benchmark.md).
            keys: settings of the benchmark, as those of conf/benchmark.

        Raises:
            ConfigError: a key is unknown, or a value is out of range.
            ValueError: there is no such benchmark or split.
        """
        self.benchmark, settings = opened(benchmark, target=target, **keys)
        self.max_steps, self.render_mode = settings.max_steps, render_mode
        self.tasks = self.benchmark.tasks(split)
        self.observation_space, self.action_space = AnyText(LONGEST_OBSERVATION), AnyText(LONGEST_ACTION)
        self._env: Env | None = None
        self._steps, self._text = 0, ""

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """
        Args:
            seed: of the draw of tasks; a benchmark's episode itself draws nothing.
            options: {"task": number in the split, or task_id}.
        """
        super().reset(seed=seed)
        if unknown := sorted((options or {}).keys() - {"task"}):
            raise ValueError(f"options has an unknown key {unknown[0]!r}: it takes task")
        task = self._task((options or {}).get("task"))
        with _as_they_are():
            self._env, observation = begin(self.benchmark, task)
        self._steps = 0
        return self._shown(observation, {})

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._env is None:
            raise gymnasium.error.ResetNeeded("the episode has ended, or none has begun: call reset() first")
        with _as_they_are():
            result = step_in_place(self._env, action)
        self._steps += 1
        at_limit = result.at_limit
        if at_limit is None:  # by the count, as well as that can be told
            at_limit = result.done and not result.success and self._steps >= self.max_steps
        facts = {"valid": result.valid, "success": result.success, "score": result.score, **result.info}
        text, info = self._shown(result, facts)
        if result.done:
            self._env = None
        return text, result.reward, result.done and not at_limit, at_limit, info

    def render(self) -> str | None:
        return self._text if self.render_mode == "ansi" else None

    def _task(self, which: SupportsIndex | str | None) -> Task:
        match _number(which):
            case None:
                return self.tasks[int(self.np_random.integers(len(self.tasks)))]
            case int(number) if 0 <= number < len(self.tasks):
                return self.tasks[number]
            case str(name) if found := [task for task in self.tasks if task.task_id == name]:
                return found[0]
            case _:
                raise ValueError(
                    f"no task {which!r}: options['task'] is 0 to {len(self.tasks) - 1}, or one of the task_ids"
                )

    def _shown(self, shown: Observation | StepResult, facts: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        assert self._env is not None, "it has begun"
        self._text = shown.text
        task = self._env.task
        return shown.text, {**facts, "task_id": task.task_id, "kind": task.kind, "actions": shown.actions}


def _number(which: Any) -> Any:
    """Numpy's integers as Python's, and no truth value for 0 or 1; anything else as it is."""
    with suppress(TypeError):
        return str(which) if isinstance(which, bool) else operator.index(which)
    return which


@contextmanager
def _as_they_are() -> Iterator[None]:
    """What an environment raises; there is no rollout here that would count it."""
    try:
        yield
    except EnvironmentFailed as failed:
        raise failed.error from failed


def register() -> None:
    """Make `gymnasium.make("empg/alfworld-v0", split=..., **keys)` known, and its neighbours; twice is once."""
    for name in OURS:
        if (id_ := f"{NAMESPACE}/{name}-v0") not in gymnasium.registry:
            gymnasium.register(id_, entry_point=f"{__name__}:TextEnv", kwargs={"benchmark": name})
