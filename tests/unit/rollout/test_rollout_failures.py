"""Environments that break: their episodes end in `env_error` with the reason, the others do not notice."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.benchmarks.base import DataError, Observation, StepResult, UnscoredError
from empg_cli.evaluation.evaluate import evaluate_expert, summarise
from empg_cli.learner.demonstrations import demonstrations
from empg_cli.model.tiny import word_tokenizer
from empg_cli.rollout.masking import EnvironmentsDown, TasksBroken, count_masked
from empg_cli.rollout.outcomes import end_of, reported_numbers
from empg_cli.services.errors import NoAnswerError
from empg_cli.types import Status, Task
from tests.support.scripted import scripted_rollout
from tests.support.tiny import tiny_config


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


def make(task: Task) -> FragileEnv:
    """Step -1 is the making."""
    if task.data and task.data[0] == -1:
        raise task.data[1]
    return FragileEnv(task)


class EndlessEnv(FragileEnv):
    def step(self, action: str) -> StepResult:
        return StepResult("Nothing happens.", ("look",), 0.0, False, False, 0.0, True)


def play_endless(answers: int) -> Any:
    codec = CompactCodec(word_tokenizer(vocabulary()))
    return scripted_rollout(
        SimpleNamespace(make_env=EndlessEnv),
        lambda: Agent(AlfworldCompact(), codec, context="transcript", history=0),
        [Task("t0", "look", "train", None)],
        [["look"] * answers],
    )


def play(*broken: tuple[int, Exception] | None) -> Any:
    tasks = [Task(f"t{number}", "look", "train", data) for number, data in enumerate(broken)]
    benchmark = SimpleNamespace(make_env=make)
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
    ours = [record for record in caplog.records if record.name.startswith("empg_cli")]
    assert [record.args for record in ours] == [("t0",), ("t2",)]


def test_reported_numbers() -> None:
    found = reported_numbers({"em": 1.0, "searches": 2, "well_formed": True, "answer": "7", "none": None, "t": (1,)})
    assert found == {"em": 1.0, "searches": 2.0, "well_formed": 1.0}
    assert reported_numbers({"mean": math.nan, "most": math.inf, "least": -1}) == {"least": -1.0}


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_reward_or_score_that_is_no_number_is_the_environments_fault(number: float) -> None:
    with pytest.raises(ValueError, match="the reward of a step must be a finite number"):
        StepResult("", (), number, False, False, 0.0, True)
    with pytest.raises(ValueError, match="the score of a step must be a finite number"):
        StepResult("", (), 0.0, False, False, number, True)


@pytest.mark.parametrize(
    ("done", "success", "at_limit", "steps", "end"),
    [
        (False, False, None, 2, None),
        (False, False, None, 3, Status.STEP_LIMIT),  # the environment does not say that it ends, and would go on
        (True, True, None, 3, Status.SUCCESS),
        (True, False, None, 2, Status.FAILED),
        (True, False, None, 3, Status.STEP_LIMIT),  # by the count, as well as that can be told
        (True, False, False, 3, Status.FAILED),  # a wrong purchase with the last step
        (True, False, True, 2, Status.STEP_LIMIT),
    ],
)
def test_how_an_episode_ends(done: bool, success: bool, at_limit: bool | None, steps: int, end: Status | None) -> None:
    result = StepResult("", (), 0.0, done, success, 0.0, True, at_limit=at_limit)
    assert end_of(result, steps=steps, max_steps=3) == end


def test_an_environment_that_never_ends_is_ended() -> None:
    """The limit of `scripted_rollout` is 6 steps; nothing more is asked for."""
    (trajectory,) = play_endless(9)
    assert (trajectory.status, len(trajectory.steps)) == (Status.STEP_LIMIT, 6)


def test_a_task_whose_environment_cannot_be_made_ends_its_own_episode(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        broken, fine, reset, also = play(
            (-1, DataError("a.json: no game")), None, (0, KeyError("x")), (-1, DataError("b.json: no game"))
        )
    assert [t.status for t in (broken, fine, reset, also)] == ["env_error", "success", "env_error", "env_error"]
    assert [t.has_no_env for t in (broken, fine, reset, also)] == [True, False, True, True]
    assert (broken.error, reset.error) == ("a.json: no game", "KeyError: 'x'")
    # What is wrong with the data needs no traceback, and is said once.
    assert [(r.getMessage(), bool(r.exc_info)) for r in caplog.records] == [
        ("t0 cannot be played: a.json: no game", False),
        ("the environment failed on t2", True),
    ]


def test_a_service_that_is_gone_at_the_start_is_no_fault_of_the_task() -> None:
    trajectories = play((0, UnscoredError("gone")), (0, NoAnswerError("gone")))
    assert [t.has_no_env for t in trajectories] == [False, False]
    with pytest.raises(EnvironmentsDown, match="2 of 2 episodes"):
        count_masked(trajectories)


def test_a_run_goes_on_without_some_tasks_and_not_without_most() -> None:
    trajectories = play((-1, DataError("a: no game")), None, None, (-1, DataError("b: no game")))
    assert count_masked(trajectories[:3]) == 3  # a single episode of a group trains nothing
    with pytest.raises(TasksBroken, match=r"1 of 1 tasks cannot be played, such as t0: a: no game\n.* 50%"):
        count_masked(trajectories[:1])
    count_masked(trajectories)  # half
    with pytest.raises(TasksBroken, match="2 of 3 tasks"):
        count_masked([*trajectories[:2], trajectories[3]])
    with pytest.raises(TasksBroken, match="2 of 3 tasks"):
        summarise([*trajectories[:2], trajectories[3]], benchmark="b", split="s", temperature=0.0)


class Outside:
    """A benchmark that is not ours; tasks and experts that break as `task.data` says."""

    name, splits = "outside", ("train",)

    def tasks(self, split: str) -> list[Task]:
        broken = {1: (-1, OSError("no such file")), 2: (0, IndexError("empty")), 3: (2, RuntimeError("lost"))}
        return [Task(f"t{number}", "k", split, broken.get(number)) for number in range(8)]

    make_env = staticmethod(make)

    def expert(self, env: Any, rng: Any = None) -> Iterator[str]:
        yield "look"
        if env.task.task_id == "t4":
            raise StopAsyncIteration
        yield from ["look"] * 2


def test_the_expert_is_judged_on_what_can_be_played() -> None:
    settings: Any = SimpleNamespace(split="train", eval_tasks=None, max_steps=6)
    evaluation = evaluate_expert(Outside(), settings, seed=0)  # type: ignore[arg-type]
    errors = {t.task.task_id: t.error for t in evaluation.trajectories if not t.is_scored}
    assert errors == {
        "t1": "OSError: no such file",
        "t2": "IndexError: empty",
        "t3": "RuntimeError: lost",
        "t4": "StopAsyncIteration: ",
    }
    assert (evaluation.total.n, evaluation.total.not_judged, evaluation.total.success_rate) == (4, 4, 1.0)


def test_demonstrations_pass_over_what_cannot_be_played() -> None:
    cfg = tiny_config("trainer.warm_start.steps=1", "trainer.warm_start.batch_size=6", "trainer.warm_start.mistakes=0")
    codec = CompactCodec(word_tokenizer(vocabulary()))
    batches = demonstrations(
        Outside(),  # type: ignore[arg-type]
        lambda: Agent(AlfworldCompact(), codec, context="transcript", history=0),
        cfg.trainer.warm_start,
        cfg.rollout,
        seed=0,
    )
    assert [shown.success for shown in next(batches)] == [True] * 6
