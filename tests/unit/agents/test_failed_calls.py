"""Too many calls without an answer: a rollout, an evaluation or a warm start ends there, and nothing has happened."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.benchmarks.base import tallies_of
from empg_cli.evaluation.evaluate import evaluate
from empg_cli.learner.demonstrations import SUSPICIOUS, demonstrations
from empg_cli.model.tiny import word_tokenizer
from empg_cli.rollout.source import Source
from empg_cli.runs.checkpoint import TrainState
from empg_cli.services.errors import NoAnswerError, ServerDown
from empg_cli.services.tally import FailedCalls, Tally
from empg_cli.types import Task
from tests.support.one_step import FAIL, SOLVE, OneStepEnv
from tests.support.scripted import ScriptedEngine
from tests.support.tiny import tiny_config


def ask(tally: Tally, *answers: bool) -> None:
    for is_answered in answers:
        try:
            with tally.question():
                if not is_answered:
                    raise NoAnswerError("nobody there")
        except NoAnswerError:
            pass


def test_the_share_is_of_what_was_asked_since() -> None:
    tally = Tally("the oracle at http://x")
    ask(tally, *[False] * 50)
    calls = FailedCalls([Tally("another"), tally], 0.25)
    calls.check()  # nothing was asked
    ask(tally, True, True, True, False)
    calls.check()  # exactly the share
    ask(tally, True, False)
    with pytest.raises(
        ServerDown, match=r"^2 of 6 calls of the oracle at http://x .*max_failed_calls=0\.25 .*nobody there$"
    ):
        calls.check()
    FailedCalls([tally], 0.0).check()


def test_a_share_of_one_bears_everything_and_a_share_of_zero_nothing() -> None:
    tally = Tally("the oracle")
    everything, nothing = FailedCalls([tally], 1.0), FailedCalls([tally], 0.0)
    ask(tally, False)
    everything.check()
    with pytest.raises(ServerDown):
        nothing.check()


class Asking:
    """A benchmark of one step; each environment asks a server, which answers until it has answered `answers` times."""

    name = "asking"

    def __init__(self, answers: int) -> None:
        self.left = answers
        self.tallies = [Tally("the oracle")]

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"t{number}", "k", split) for number in range(4)]

    def make_env(self, task: Task) -> Any:
        env = OneStepEnv(task)

        def step(action: str) -> Any:
            self.left -= 1
            ask(self.tallies[0], self.left >= 0)
            return env.step(action)

        return SimpleNamespace(task=task, reset=env.reset, step=step)

    def expert(self, env: Any, rng: Any) -> Any:
        return iter([FAIL])


def agent() -> Agent:
    return Agent(AlfworldCompact(), CompactCodec(word_tokenizer(vocabulary())), context="transcript", history=0)


def engine(*actions: str) -> ScriptedEngine:
    return ScriptedEngine(agent().codec, [[AlfworldCompact().phrase(action)] for action in actions])


def source(answers: int, *words: str) -> Source:
    cfg = tiny_config("algo=grpo", "trainer.tasks_per_update=2", "algo.group_size=2", *words)
    return Source(cfg, engine(SOLVE, FAIL, SOLVE, FAIL), Asking(answers), agent)


def test_a_rollout_with_too_many_unanswered_calls_is_no_rollout() -> None:
    state = TrainState(update=3, next_task=5)
    trajectories, _ = source(4).next(replace(state))
    assert len(trajectories) == 4
    with pytest.raises(ServerDown, match="1 of 4 calls of the oracle"):
        source(3).next(replace(state))
    trajectories, _ = source(3, "trainer.health.max_failed_calls=0.25").next(replace(state))
    assert len(trajectories) == 4


def test_an_evaluation_with_too_many_unanswered_calls_is_none() -> None:
    cfg = tiny_config()

    def play(answers: int, most: float) -> Any:
        return evaluate(
            engine(*[FAIL] * 4), Asking(answers), agent, cfg.benchmark, cfg.rollout, seed=0, max_failed_calls=most
        )

    assert play(4, 0.0).total.n == 4
    assert play(3, 0.25).total.n == 4
    with pytest.raises(ServerDown):
        play(3, 0.2)


def test_a_warm_start_blames_the_server_before_the_expert() -> None:
    cfg = tiny_config("trainer.warm_start.batch_size=4")
    benchmark: Any = Asking(0)

    def first(most: float) -> Any:
        return next(
            demonstrations(benchmark, agent, cfg.trainer.warm_start, cfg.rollout, seed=0, max_failed_calls=most)
        )

    with pytest.raises(ServerDown, match=f"{SUSPICIOUS} of {SUSPICIOUS} calls of the oracle"):
        first(0.1)


def test_a_benchmark_without_servers_has_no_tallies() -> None:
    assert tallies_of(SimpleNamespace()) == ()  # type: ignore[arg-type]
    assert tallies_of(Asking(0))[0].server == "the oracle"  # type: ignore[arg-type]
