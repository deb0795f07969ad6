"""What a benchmark is: tasks in a fixed order, single-use environments, an expert, a fingerprint."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from empg_cli.errors import DataError as DataError  # part of what a benchmark may raise
from empg_cli.services.tally import Tally
from empg_cli.types import Task


class UnscoredError(Exception):
    """The episode cannot be judged fairly, for a reason that is not the agent's: it ends in `Status.ENV_ERROR`, outside
    training and scores, never with a reward of 0."""


@dataclass(frozen=True, slots=True)
class Observation:
    text: str
    actions: tuple[str, ...]
    """Admissible commands in the environment's own order (templates for free text, e.g. `search[<query>]`)."""


@dataclass(frozen=True, slots=True)
class StepResult:
    text: str
    actions: tuple[str, ...]
    reward: float
    """The environment's reward for this step; penalties for malformed actions are added by the rollout."""
    done: bool
    success: bool
    score: float
    """The benchmark's own number in [0, 1]."""
    valid: bool
    """The environment accepted the action (a refused one changes nothing)."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """How the episode stands. The numbers (and yes/no) of its last step become the metrics `<benchmark>/<key>`."""
    at_limit: bool | None = None
    """The step limit has ended the episode, which would else go on; None = the environment does not say."""

    def __post_init__(self) -> None:
        """The border: whatever an environment computes with, Python's own numbers leave it. numpy's do not go into
        JSON, and its `bool_` is no number to `numbers.Real`."""
        for name, kind in (("reward", float), ("done", bool), ("success", bool), ("score", float), ("valid", bool)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        for name in ("reward", "score"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"the {name} of a step must be a finite number, got {getattr(self, name)}")
        object.__setattr__(self, "info", {key: _plain(value) for key, value in self.info.items()})


def _plain(value: Any) -> Any:
    """A scalar of numpy or torch as Python's own; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


@runtime_checkable
class Env(Protocol):
    """Single use: make it, play one episode, drop it. No global state; any number may live in one process."""

    task: Task

    def reset(self) -> Observation: ...

    def step(self, action: str) -> StepResult:
        """Any string is legal input; one that means nothing is answered as the benchmark answers it."""
        ...


@runtime_checkable
class Benchmark(Protocol):
    name: str

    @property
    def splits(self) -> tuple[str, ...]: ...

    def tasks(self, split: str) -> Sequence[Task]:
        """All tasks of a split, in fixed order. Raises ValueError for an unknown split."""
        ...

    def make_env(self, task: Task) -> Env: ...

    def expert(self, env: Env, rng: random.Random | None = None) -> Iterator[str]:
        """Actions of an expert that sees only what an agent sees. Step `env` with each one as it is yielded."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What data this is: `source` (official or generated), counts per split, `digest`."""
        ...


@runtime_checkable
class StepsTogether(Protocol):
    """A benchmark whose environments may wait for a network, so that stepping them at once saves time."""

    @property
    def waits(self) -> bool:
        """Whether they do; else they are stepped one by one."""
        ...

    def step_many(self, envs: Sequence[Any], actions: Sequence[str]) -> Sequence[StepResult | BaseException]:
        """One step of each environment. One that cannot go on has its exception in the list."""
        ...


@runtime_checkable
class AsksServers(Protocol):
    """A benchmark, or a part of one, whose episodes need answers of servers."""

    @property
    def tallies(self) -> Sequence[Tally]:
        """What each of them was asked so far, and how much of it in vain."""
        ...


def tallies_of(benchmark: Benchmark) -> Sequence[Tally]:
    """What its servers were asked; nothing where it has none."""
    return benchmark.tallies if isinstance(benchmark, AsksServers) else ()
