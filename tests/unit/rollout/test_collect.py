"""The rules of an episode: what an invalid action costs, and when the context is full."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.rollout.collect import collect
from empg_cli.rollout.episode import EpisodeRules
from empg_cli.types import Status, Task, Trajectory
from tests.support.noting import MALFORMED, NotingEngine, make_agent

OPENING = "You are in the middle of a room.\n\nYour task is to: put a cd in safe."


class Env:
    """Two steps; refuses `inventory`; the last one earns 1."""

    def __init__(self, task: Task) -> None:
        self.task, self._steps = task, 0

    def reset(self) -> Observation:
        return Observation(OPENING, ("look",))

    def step(self, action: str) -> StepResult:
        self._steps += 1
        done = self._steps == 2
        return StepResult("Nothing happens.", ("look",), float(done), done, done, float(done), action != "inventory")


def play(answer: str, *, penalise_refused: bool = False, max_context_tokens: int = 1000) -> Trajectory:
    rules = EpisodeRules(
        append_only=True,
        max_steps=9,
        temperature=1.0,
        max_new_tokens=4,
        max_context_tokens=max_context_tokens,
        invalid_action_penalty=0.25,
        penalise_refused=penalise_refused,
    )
    engine: Any = NotingEngine(answer)
    benchmark: Any = SimpleNamespace(make_env=Env)

    tasks = [Task("t", "k", "train")]
    (played,) = collect(engine, benchmark, make_agent, tasks, group_size=1, rules=rules, stream=(0,))
    return played


@pytest.mark.parametrize(
    ("answer", "penalise_refused", "rewards"),
    [
        ("look", True, [0.0, 1.0]),
        (MALFORMED, False, [-0.25, 0.75]),
        ("inventory", False, [0.0, 1.0]),  # well formed, but refused
        ("inventory", True, [-0.25, 0.75]),
    ],
)
def test_an_invalid_action_costs_the_penalty(answer: str, penalise_refused: bool, rewards: list[float]) -> None:
    played = play(answer, penalise_refused=penalise_refused)
    assert [step.reward for step in played.steps] == rewards
    assert played.reward == sum(rewards)
    assert played.task_reward == 1.0


def test_an_episode_ends_before_a_response_could_leave_the_context() -> None:
    whole = play("look")
    assert [len(step.response_ids) for step in whole.steps] == [2, 2]
    first, second = (len(step.prompt_ids) for step in whole.steps)
    needed = first + 2 + second + 4  # both prompts, the first response, and room for the longest second one
    assert [len(play("look", max_context_tokens=limit).steps) for limit in (needed, needed - 1)] == [2, 1]
    assert play("look", max_context_tokens=needed).status is Status.SUCCESS
    assert play("look", max_context_tokens=needed - 1).status is Status.CONTEXT_OVERFLOW
