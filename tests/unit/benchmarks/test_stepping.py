"""Environments that wait for a network: stepped together, in order or beside the engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from empg_cli.benchmarks.base import StepResult
from empg_cli.benchmarks.border import EnvironmentFailed
from empg_cli.rollout.stepping import Stepper
from empg_cli.types import Task, Trajectory


def answer(text: str) -> StepResult:
    return StepResult(text, (), 0.0, False, False, 0.0, True)


class Networked:
    """A benchmark that notes what it is asked at once, and where; the action `break` breaks one episode's."""

    name, waits = "networked", True

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.threads: set[str] = set()

    def step_many(self, envs: Sequence[Any], actions: Sequence[str]) -> list[StepResult | BaseException]:
        self.calls.append(list(actions))
        self.threads.add(threading.current_thread().name)
        return [ConnectionError("gone") if action == "break" else answer(f"{action}!") for action in actions]


def play(benchmark: Any, scripts: Sequence[Sequence[str]], *, in_order: bool = True) -> list[list[str]]:
    """Episodes that take these actions; `think` is a turn of the model without one."""
    stepper = Stepper(benchmark, in_order=in_order)
    told: list[list[str]] = [[] for _ in scripts]

    async def episode(number: int) -> None:
        with stepper.episode():
            for action in scripts[number]:
                if action == "think":
                    for _ in range(20):
                        await asyncio.sleep(0)
                    continue
                try:
                    told[number].append((await stepper.step(None, action)).text)  # type: ignore[arg-type]
                except EnvironmentFailed as failed:
                    told[number].append(str(failed.error))

    async def all_of_them() -> None:
        await asyncio.wait_for(asyncio.gather(*(episode(number) for number in range(len(scripts)))), timeout=20)

    asyncio.run(all_of_them())
    return told


def test_all_that_ask_at_once_are_one_call() -> None:
    benchmark = Networked()
    assert play(benchmark, [["a"], ["break"], ["c"]]) == [["a!"], ["gone"], ["c!"]]
    assert benchmark.calls == [["a", "break", "c"]]
    assert benchmark.threads == {threading.main_thread().name}, "nothing may depend on how long a call takes"


def test_half_of_the_episodes_are_enough_for_a_call() -> None:
    """Two of four think longer: the others do not wait for them, and those that are over count no more."""
    benchmark = Networked()
    told = play(benchmark, [["a"], ["b"], ["think", "c"], ["think", "think", "d"]])
    assert told == [["a!"], ["b!"], ["c!"], ["d!"]]
    assert benchmark.calls == [["a", "b"], ["c"], ["d"]]


def test_fewer_than_half_wait() -> None:
    benchmark = Networked()
    play(benchmark, [["a"], ["think", "b"], ["think", "c"]])
    assert benchmark.calls == [["a", "b", "c"]]


def test_the_last_one_is_not_forgotten_when_the_others_end() -> None:
    benchmark = Networked()
    assert play(benchmark, [["a"], ["think"], ["think"], ["think"]])[0] == ["a!"]


def test_with_an_engine_that_keeps_no_order_calls_are_made_in_a_thread() -> None:
    benchmark = Networked()
    assert play(benchmark, [["a"], ["b", "c"]], in_order=False) == [["a!"], ["b!", "c!"]]
    assert threading.main_thread().name not in benchmark.threads


def test_a_benchmark_that_does_not_wait_is_stepped_in_place() -> None:
    class Local(Networked):
        waits = False

    class Env:
        def step(self, action: str) -> StepResult:
            return answer(f"in place: {action}")

    async def one_step() -> str:
        return (await Stepper(Local(), in_order=True).step(Env(), "a")).text  # type: ignore[arg-type]

    assert asyncio.run(one_step()) == "in place: a"


def test_a_call_that_fails_as_a_whole_ends_the_rollout() -> None:
    class Broken(Networked):
        def step_many(self, envs: Sequence[Any], actions: Sequence[str]) -> Any:
            raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        play(Broken(), [["a"], ["b"]])


@pytest.mark.parametrize("in_order", [True, False])
def test_a_result_too_few_is_an_error_and_no_silence(in_order: bool) -> None:
    class Short(Networked):
        def step_many(self, envs: Sequence[Any], actions: Sequence[str]) -> Any:
            return super().step_many(envs, actions)[:-1]

    with pytest.raises(ValueError, match="gave 1 results for 2 environments"):
        play(Short(), [["a"], ["b"]], in_order=in_order)


def test_calls_do_not_overlap() -> None:
    """While two of four wait for a slow call, the others ask too: they are the next call."""
    busy, most = 0, 0

    class Slow(Networked):
        def step_many(self, envs: Sequence[Any], actions: Sequence[str]) -> Any:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            time.sleep(0.05)
            busy -= 1
            return super().step_many(envs, actions)

    benchmark = Slow()
    play(benchmark, [["a"], ["b"], ["think", "c"], ["think", "d"]], in_order=False)
    assert (most, benchmark.calls) == (1, [["a", "b"], ["c", "d"]])


@pytest.mark.parametrize("way", ["in place", "together"])
def test_an_environment_may_run_an_event_loop_of_its_own(way: str) -> None:
    async def inner(action: str) -> StepResult:
        await asyncio.sleep(0)
        return answer(f"own loop: {action}")

    class Own(Networked):
        waits = way == "together"

        def step_many(self, envs: Sequence[Any], actions: Sequence[str]) -> Any:
            return [asyncio.run(inner(action)) for action in actions]

        def make_env(self, task: Task) -> Any:
            asyncio.run(inner("make"))
            return Env()

    class Env:
        def step(self, action: str) -> StepResult:
            return asyncio.run(inner(action))

        def reset(self) -> Any:
            return asyncio.run(inner("reset"))

    async def one_episode() -> list[str]:
        stepper = Stepper(Own(), in_order=True)  # type: ignore[arg-type]
        with stepper.episode():
            env, first = stepper.begin(Trajectory(Task("t", "k", "train"), 0, 0))
            return [first.text, (await stepper.step(env, "a")).text]

    assert asyncio.run(one_episode()) == ["own loop: reset", "own loop: a"]


def test_an_interrupt_is_no_failure_of_an_environment() -> None:
    class Interrupted(Networked):
        def step_many(self, envs: Sequence[Any], actions: Sequence[str]) -> Any:
            return [KeyboardInterrupt() for _ in actions]

    with pytest.raises(KeyboardInterrupt):
        play(Interrupted(), [["a"]])
