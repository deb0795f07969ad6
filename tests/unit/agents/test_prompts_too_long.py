"""No first prompt fits into the context: one message that says which limit is too small, in training and evaluation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.evaluation.evaluate import evaluate
from empg_cli.model.tiny import word_tokenizer
from empg_cli.rollout.collect import NothingFits
from empg_cli.rollout.source import Source
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Status, Task
from tests.support.scripted import ScriptedEngine
from tests.support.tiny import tiny_config

CODEC = CompactCodec(word_tokenizer(vocabulary()))
SAFES = [1, 1, 3, 1]
"""Of the room of each task. `task place cd safe room see safe_1 ... hold none want ...`: a longer room, more tokens."""
CFG = tiny_config("algo.group_size=2", "trainer.tasks_per_update=2", "rollout.max_new_tokens=8")


class Room:
    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self) -> Observation:
        seen = ", a ".join(f"safe {number + 1}" for number in range(SAFES[self.task.data]))
        text = f"You are in the middle of a room. Looking quickly around you, you see a {seen}."
        return Observation(f"{text}\n\nYour task is to: put a cd in safe.", ("look",))

    def step(self, action: str) -> StepResult:
        return StepResult("Nothing happens.", (), 1.0, True, True, 1.0, True)


TASKS = [Task(f"t{number}", "k", "train", data=number) for number in range(4)]
BENCHMARK: Any = SimpleNamespace(
    name="alfworld", make_env=Room, tasks=lambda split: TASKS, splits=("train", "valid_seen")
)
LENGTHS = [len(CODEC.opening(AlfworldCompact().opening(Room(task).reset()))) for task in TASKS]


def limited(tokens: int) -> TrainConfig:
    return CFG.model_copy(update={"rollout": CFG.rollout.model_copy(update={"max_context_tokens": tokens})})


def agent() -> Agent:
    return Agent(AlfworldCompact(), CODEC, context="transcript", history=0)


def engine() -> Any:
    return ScriptedEngine(CODEC, [["look"]] * 4)


def sampled(cfg: TrainConfig) -> list[Any]:
    return Source(cfg, engine(), BENCHMARK, agent).next(TrainState())[0]


def evaluated(cfg: TrainConfig) -> list[Any]:
    return evaluate(engine(), BENCHMARK, agent, cfg.benchmark, cfg.rollout, seed=0).trajectories


@pytest.mark.parametrize("play", [sampled, evaluated])
def test_one_message_names_the_limit_and_what_fits(play: Any) -> None:
    short, long = min(LENGTHS), max(LENGTHS)
    assert short < long
    with pytest.raises(NothingFits) as raised:
        play(limited(short + 7))  # one token short of the shortest prompt and a response
    assert isinstance(raised.value, UserError)
    first, second = str(raised.value).split("\n")
    assert f"rollout.max_context_tokens={short + 7} is too small" in first
    assert "rollout.max_new_tokens=8" in first
    assert f"{short} to " in first
    suggested = int(second.split("rollout.max_context_tokens to ")[1].split()[0])
    assert all(trajectory.steps for trajectory in play(limited(suggested)))


def test_some_that_do_not_fit_are_no_error() -> None:
    statuses = [trajectory.status for trajectory in evaluated(limited(min(LENGTHS) + 8))]
    assert statuses.count(Status.CONTEXT_OVERFLOW) == 1
