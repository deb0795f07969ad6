"""Code as somebody else would write it, for the door (docs/adding-a-benchmark.md has the long form)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pydantic import BaseModel, model_validator

from empg_cli.agents.plain import PlainChat
from empg_cli.agents.wording import Form, Wording
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.config.node import BenchmarkSettings, Node
from empg_cli.observe.sinks import SinkRun
from empg_cli.types import Task


class CoinSettings(BenchmarkSettings):
    side: str = "heads"
    lacks: str | None = None
    """What the benchmark is made without."""


class Flip:
    def __init__(self, task: Task, side: str) -> None:
        self.task, self._side = task, side

    def reset(self) -> Observation:
        return Observation("a coin", ("heads", "tails"))

    def step(self, action: str) -> StepResult:
        won = action == self._side
        return StepResult(self._side, (), float(won), True, won, float(won), action in ("heads", "tails"), {"won": won})


class Coin:
    splits: tuple[str, ...] = ("train", "test")
    vocabulary = ("a", "coin", "heads", "tails")

    def __init__(self, settings: CoinSettings) -> None:
        self.name = "another" if settings.lacks == "name" else settings.name
        self.settings_given = settings
        if settings.lacks == "train":
            self.splits = ("test",)

    def tasks(self, split: str) -> list[Task]:
        return [] if self.settings_given.lacks == "tasks" else [Task(f"{split}-0", "coin", split)]

    def make_env(self, task: Task) -> Flip:
        return Flip(task, self.settings_given.side)

    def expert(self, env: Flip, rng: random.Random | None = None) -> Iterator[str]:
        yield self.settings_given.side

    def fingerprint(self) -> dict[str, Any]:
        return {} if self.settings_given.lacks == "source" else {"source": "generated", "tasks": {"train": 1}}


class Shouting(PlainChat):
    def turn(self, action: str, observation: Observation) -> str:
        return super().turn(action, observation).upper()


class SpokenCoin(Coin):
    def wording(self, form: Form) -> Callable[[], Wording] | None:
        return Shouting if form == "chat" else None


def nothing(settings: CoinSettings) -> object:
    return object()


class Ends(Node):
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def ends_are_in_order(self) -> Ends:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


def clamped(advantage_S: Any, entropy_S: Any, next_S: Any, *, low: float, high: float) -> Any:
    return advantage_S.clamp(low, high)


clamped.settings: type[BaseModel] = Ends  # type: ignore[attr-defined, misc]


def bad_credit(advantage_S: Any, entropy_S: Any, next_S: Any, *, how: str) -> Any:
    match how:
        case "shape":
            return advantage_S[:-1]
        case "infinite":
            return advantage_S / 0.0
        case "int":
            return next_S
        case "list":
            return advantage_S.tolist()
        case "in place":
            entropy_S.zero_()
            return advantage_S.mul_(2)
    return torch.zeros_like(advantage_S)


class Noted:
    """A sink that keeps what it gets, or raises where it is told to."""

    name = pointer = "noted"
    made: list[Noted] = []  # noqa: RUF012

    def __init__(self, run: SinkRun, *, raises: str = "") -> None:
        self.run, self.raises, self.calls = run, raises, []  # type: ignore[var-annotated]
        self._fail("start")
        Noted.made.append(self)

    def _fail(self, where: str) -> None:
        if self.raises == where:
            raise RuntimeError(f"cannot {where}")

    def log(self, step: int, row: Mapping[str, Any]) -> None:
        self._fail("log")
        self.calls.append((step, dict(row)))

    def summary(self, values: Mapping[str, Any]) -> None:
        self._fail("summary")

    def close(self, exit_code: int) -> None:
        self.calls.append(("close", exit_code))


def no_sink(run: SinkRun) -> object:
    return object()


class NamedAsOurs(Noted):
    name = "csv"


def noted_as_wandb(run: SinkRun) -> Noted:
    sink = Noted(run)
    sink.name = "wandb"
    return sink
