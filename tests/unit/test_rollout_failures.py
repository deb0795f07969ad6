"""Environments that break: their episodes end in `env_error` with the reason, the others do not notice."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.benchmarks.base import Observation, StepResult, UnscoredError
from empg_cli.model.tiny import word_tokenizer
from empg_cli.rollout.outcomes import reported_numbers
from empg_cli.types import Status, Task
from tests.support.scripted import scripted_rollout


class FragileEnv:
    """`task.data` says at which step it breaks, and how; step 0 is the reset. Solved at step 3."""

    def __init__(self, task: Task) -> None:
        self.task, self._steps = task, 0

    def reset(self) -> Observation:
        self._break()
        return Observation("You are in the middle of a room.\n\nYour task is to: put a cd in safe.", ("look",))

    def step(self, action: str) -> StepResult:
        self._steps += 1
        self._break()
        done = self._steps == 3
        return StepResult("Nothing happens.", ("look",), float(done), done, done, float(done), True, {"n": self._steps})

    def _break(self) -> None:
        step, error = self.task.data or (-1, None)
        if step == self._steps:
            raise error


def play(*broken: tuple[int, Exception] | None) -> Any:
    tasks = [Task(f"t{number}", "look", "train", data) for number, data in enumerate(broken)]
    benchmark = SimpleNamespace(make_env=FragileEnv)
    codec = CompactCodec(word_tokenizer(vocabulary()))
    return scripted_rollout(
        benchmark,
        lambda: Agent(AlfworldCompact(), codec, context="transcript", history=0),
        tasks,
        [["look"] * 3 for _ in tasks],
    )


def test_a_broken_environment_ends_its_own_episode(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        at_reset, fine, in_step, unjudged = play(
            (0, ConnectionError("gone")), None, (2, KeyError("page")), (3, UnscoredError("no verdict"))
        )
    assert [t.status for t in (at_reset, fine, in_step, unjudged)] == [
        Status.ENV_ERROR,
        Status.SUCCESS,
        Status.ENV_ERROR,
        Status.ENV_ERROR,
    ]
    assert [t.is_scored for t in (at_reset, fine, in_step, unjudged)] == [False, True, False, False]
    assert [len(t.steps) for t in (at_reset, fine, in_step, unjudged)] == [0, 3, 2, 3]
    assert (at_reset.error, in_step.error, unjudged.error) == (
        "ConnectionError: gone",
        "KeyError: 'page'",
        "UnscoredError: no verdict",
    )
    assert (fine.error, fine.info) == (None, {"n": 3.0})
    assert in_step.info == {"n": 1.0}  # of the last step that was answered
    # What the environment foresaw needs no traceback.
    assert [record.args for record in caplog.records] == [("t0",), ("t2",)]


def test_reported_numbers() -> None:
    found = reported_numbers({"em": 1.0, "searches": 2, "well_formed": True, "answer": "7", "none": None, "t": (1,)})
    assert found == {"em": 1.0, "searches": 2.0, "well_formed": 1.0}
