"""Episodes that go on over updates: what trains, what is dropped, what is played again, and how it ends."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from empg_cli import experiment
from empg_cli.experiment import Experiment
from empg_cli.ranks import ALONE
from empg_cli.rollout import ahead as ahead_module
from empg_cli.rollout.ahead_source import AheadSource, open_source
from empg_cli.rollout.collect import MOST_REVIVALS
from empg_cli.rollout.engine import Completion, EngineLost
from empg_cli.rollout.freshness import Look, Verdict, judge
from empg_cli.rollout.masking import EnvironmentsDown
from empg_cli.rollout.source import Source
from empg_cli.runs.checkpoint import TrainState
from empg_cli.services.errors import NoAnswerError, ServerDown
from empg_cli.services.tally import Tally
from empg_cli.signals import Interrupted, caught, held
from tests.support.ahead import GO_ON, VLLM, SlowEngine, Walks, ahead, turns, until
from tests.support.noting import make_agent
from tests.support.one_step import BREAK, FAIL, SOLVE
from tests.support.tiny import tiny_config


def test_a_straggler_does_not_hold_an_update_and_trains_in_the_next() -> None:
    engine = SlowEngine()
    engine.held = turns(0)
    with ahead(engine) as run:
        assert run.update() == [1, 2]
        assert run.metrics["rollout/staleness/max"] == 0
        engine.held = set()
        assert run.update() == [0, 3]
        assert (run.metrics["rollout/staleness/mean"], run.metrics["rollout/staleness/max"]) == (1, 1)
        assert run.metrics["rollout/stale_groups"] == 0
        assert run.update() == [4, 5]  # begun at version 1
        assert run.metrics["rollout/staleness/mean"] == 1
    assert (run.state.episodes, run.state.env_steps, run.state.tokens) == (12, 12, 12 * 2)


def test_staleness_is_of_the_steps_that_train() -> None:
    """Group 2 has its first two turns before an update and its third after it. All turns of group 5 come after it;
    it has a member that nobody can judge, so no step of it trains."""
    engine = SlowEngine(lambda turn: GO_ON if turn[2] < 2 else BREAK if turn == (5, 1, 2) else SOLVE)
    engine.held = turns(2, turn=1) | turns(3)
    with ahead(engine) as run:
        assert run.update() == [0, 1]
        engine.held |= turns(4)
        engine.held -= turns(2, turn=1)
        trajectories = run.play()
    versions = {one.group: [step.policy_version for step in one.steps] for one in trajectories}
    assert versions == {2: [0, 0, 1], 5: [1, 1, 1]}
    assert run.metrics["rollout/staleness/mean"] == (1 + 1 + 0) / 3
    assert run.metrics["rollout/staleness/max"] == 1


def test_what_is_too_old_is_dropped_before_it_is_finished_and_counted() -> None:
    """Groups 0 and 3 stay behind, group 0 in its second turn, group 3 in its first, which has no version yet."""
    engine = SlowEngine(lambda turn: GO_ON if turn[0] == 0 and turn[2] == 0 else SOLVE)
    engine.held = turns(0, turn=1) | turns(3)
    with ahead(engine) as run:
        assert run.update() == [1, 2]
        assert run.update() == [4, 5]
        assert run.metrics["rollout/stale_groups"] == 0, "an update at version 1 may train on version 0"
        counted = run.state.episodes, run.state.env_steps
        assert counted == (8, 8)
        assert run.update() == [6, 7]
        assert run.metrics["rollout/stale_groups"] == 1
        assert (run.state.episodes, run.state.env_steps) == (8 + 4 + 2, 8 + 4 + 2)
        until(lambda: engine.open == {("ahead", (3, 0)), ("ahead", (3, 1))})
        engine.held = set()
        assert run.update() == [8, 9]
        assert run.metrics["rollout/stale_groups"] == 1
        assert 0 not in run.source._started and 3 not in run.source._started


def test_places_are_taken_until_a_group_trains_and_are_filled_for_the_next_update() -> None:
    engine = SlowEngine()
    with ahead(engine, "rollout.max_staleness=2") as run:
        assert run.update() == [0, 1]
        until(lambda: len(engine.begun) == 6)
        time.sleep(0.05)
        assert engine.begun == [0, 1, 2, 3, 4, 5]
        assert run.state.next_task == 6
        assert run.update() == [2, 3]
        assert run.state.next_task == 8


def test_no_more_is_begun_than_the_run_needs() -> None:
    engine = SlowEngine()
    with ahead(engine, "rollout.max_staleness=3", "trainer.updates=2") as run:
        assert [run.update(), run.update()] == [[0, 1], [2, 3]]
    assert engine.begun == [0, 1, 2, 3]


@pytest.mark.parametrize("places", [1, 3])
def test_no_more_episodes_than_places_are_played_at_once(places: int) -> None:
    engine = SlowEngine(takes=lambda turn: 0.002)
    with ahead(engine, f"rollout.max_concurrent={places}") as run:
        trained = [run.update(settles=False) for _ in range(3)]
        assert sorted(trained) == trained
    assert engine.most_open == places


def test_a_run_that_goes_on_plays_what_was_not_begun() -> None:
    engine = SlowEngine()
    with ahead(engine) as run:
        run.update()
    assert run.state.next_task == 4
    with ahead(engine, state=replace(run.state)) as again:
        first = again.play()
    assert {one.group for one in first} == {4, 5}
    assert [step.policy_version for one in first for step in one.steps] == [1] * 4
    assert len({one.task.task_id for one in first}) == 2


def draws(seed: int, takes: Any) -> dict[tuple[int, int], list[float]]:
    engine = SlowEngine(lambda turn: GO_ON if turn[2] == 0 else SOLVE, takes)
    with ahead(engine, f"seed={seed}", "rollout.max_concurrent=3") as run:
        for _ in range(3):
            run.update(settles=False)
        run.settle()
    return engine.draws


def test_draws_do_not_depend_on_the_company() -> None:
    one = draws(0, lambda turn: 0.0)
    other = draws(0, lambda turn: 0.002 * ((7 * turn[0] + 3 * turn[1] + turn[2]) % 5))
    assert len(one.keys() & other.keys()) >= 12
    assert all(one[name] == other[name] for name in one.keys() & other.keys())
    first = [number for numbers in one.values() for number in numbers]
    assert len(set(first)) == len(first)
    assert draws(1, lambda turn: 0.0)[0, 0] != one[0, 0]
    named = np.random.Generator(np.random.Philox(np.random.SeedSequence([6, 0, 2, 1])))  # stream, seed, group, index
    assert one[2, 1][0] == named.random()


class Failing(SlowEngine):
    """Raises in a group's first turns, so often."""

    def __init__(self, group: int, error: BaseException, times: int) -> None:
        super().__init__()
        self._group, self._error, self._left = group, error, times

    async def generate(self, prompt: Any, *, episode: Any, **options: Any) -> Completion[int]:
        completion = await super().generate(prompt, episode=episode, **options)
        if episode[1] == (self._group, 0) and self._left:
            self._left -= 1
            raise self._error
        return completion


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3)])
def test_an_error_comes_out_as_it_is(error: BaseException) -> None:
    engine = Failing(0, error, 1)
    engine.held = {(0, 1, 0), (1, 0, 0)}
    with ahead(engine) as run, pytest.raises(type(error)) as raised:
        run.update(settles=False)
    assert raised.value is error
    assert not engine.open


def test_what_is_lost_with_the_engine_is_played_again_from_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    engine = Failing(1, EngineLost("nobody answers"), 1)
    engine.held = turns(2) | turns(3)
    with ahead(engine) as run:
        assert run.update() == [0, 1]
        assert (engine.revived, "nobody answers" in caplog.text) == (1, True)
        until(lambda: len(engine.waiting) == 4)
        assert [len(engine.draws[group, 0]) for group in range(4)] == [1, 2, 2, 2], "group 0 was finished"
        assert len(set(engine.draws[1, 0])) == 1, "with the same draws"
        assert engine.begun == [0, 1, 2, 3]
        engine.held = set()
        assert run.update() == [2, 3]
        assert all(len(one.steps) == 1 for group in run.source._ahead.groups.values() for one in group.trajectories)


def test_an_engine_that_is_lost_again_and_again_ends_the_run() -> None:
    engine = Failing(0, EngineLost("gone"), MOST_REVIVALS + 1)
    engine.held = turns(2) | turns(3)
    with ahead(engine) as run:
        with pytest.raises(ServerDown, match=r"rollout\.engine=vllm was lost 4 times .* the last: gone"):
            run.update()
        assert run.engine.revived == MOST_REVIVALS


def test_losses_before_an_update_do_not_count_for_the_next() -> None:
    engine = Failing(0, EngineLost("gone"), MOST_REVIVALS)
    engine.held = turns(2) | turns(3)
    with ahead(engine) as run:
        assert run.update() == [0, 1]
        assert engine.revived == MOST_REVIVALS
        engine._group, engine._left = 4, 1
        engine.held = turns(3) | turns(5)
        assert run.update() == [2, 4]
        assert engine.revived == MOST_REVIVALS + 1


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_closing_ends_the_thread_and_what_it_plays() -> None:
    engine = SlowEngine()
    engine.held = {turn for group in range(4) for turn in turns(group)}
    with ahead(engine) as run:
        run.source._fill_places(run.state)
        until(lambda: len(engine.open) == 8)
        (thread,) = threads()
        before = time.monotonic()
    assert not thread.is_alive()
    assert not engine.open
    assert time.monotonic() - before < 1
    run.source.close()  # once more does no harm


def test_an_environment_that_blocks_does_not_hold_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ahead_module, "CLOSE_S", 0.05)
    let_go = threading.Event()

    class Blocking(Walks):
        def make_env(self, task: Any) -> Any:
            let_go.wait(20)
            return super().make_env(task)

    with ahead(SlowEngine(), benchmark=Blocking()) as run:
        run.source._fill_places(run.state)
        (thread,) = threads()
        before = time.monotonic()
    assert time.monotonic() - before < 5
    assert thread.daemon
    assert "an environment blocks" in caplog.text
    let_go.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_signal_ends_the_wait_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    engine = SlowEngine(lambda turn: GO_ON)
    engine.held = {turn for group in range(4) for turn in turns(group)}
    state = TrainState()

    def ask() -> None:
        until(lambda: len(engine.open) == 8)
        os.kill(os.getpid(), signal.SIGTERM)
        engine.held = set()

    def wait_in_vain() -> None:
        with caught(), held(), ahead(engine) as run:
            asking = threading.Thread(target=ask)
            asking.start()
            try:
                run.source.next(replace(state))
            finally:
                asking.join()
                (thread,) = threads()
                until(lambda: not engine.open)
                assert thread.is_alive(), "all that it does for the signal is to end its episodes"
                assert [group.error for group in run.source._ahead.groups.values()] == [None] * 4

    with caplog.at_level(logging.WARNING), pytest.raises(Interrupted) as raised:
        wait_in_vain()
    assert raised.value.signum == signal.SIGTERM
    assert state == TrainState()
    assert not caplog.records


def test_no_group_begins_during_a_pause_and_those_that_have_begun_go_on() -> None:
    engine = SlowEngine()
    engine.held = turns(0)
    with ahead(engine, "rollout.max_concurrent=1") as run:
        run.source._fill_places(run.state)
        until(lambda: len(engine.open) == 1)
        with run.source.paused():
            engine.held = set()
            run.until_finished(0)
            time.sleep(0.05)
            assert engine.begun == [0]
        run.until_finished(3)


def test_an_evaluation_pauses_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    with ahead(SlowEngine()) as run:
        source, nothing, observer = run.source, None, SimpleNamespace(timed=lambda _: held(), progress=lambda _: None)
        may_begin = source._ahead._may_begin.is_set
        monkeypatch.setattr(experiment, "evaluate", lambda *_, **__: until(lambda: not may_begin()))
        some: Any = (source, nothing, nothing, observer, run.state, source._cfg, nothing, nothing, nothing, ALONE)
        Experiment(*some).evaluate()
        until(may_begin)


def test_episodes_of_others_have_other_names() -> None:
    engine = SlowEngine()
    engine.held = turns(0)
    with ahead(engine) as run:
        run.update()
        assert engine.open == {("ahead", (0, 0)), ("ahead", (0, 1))}


def test_uniform_groups_are_dropped_and_others_are_begun() -> None:
    """Groups 0, 1 and 4 are uniform; 2 and 3 are not. Then 5, 6, ...: none is uniform, and 3 is late."""
    engine = SlowEngine(lambda turn: SOLVE if turn[0] in (0, 1, 4) or turn[1] == 0 else FAIL)
    engine.held = turns(3)
    with ahead(engine, "algo=dapo", "algo.group_size=2", "algo.sampling.max_resamples=3") as run:
        trained = run.update()
    assert trained == [2, 5]
    assert run.metrics["dapo/filtered_groups"] == 3
    assert run.metrics["dapo/resampled_batches"] == 2  # five groups are two and a half batches
    assert run.state.episodes == 10
    assert run.metrics["episode/success_rate"] == 8 / 10
    assert run.state.next_task in (6, 7), "group 4 is replaced by 6 where it is seen before 5 has ended"


def test_an_update_without_an_informative_group_takes_the_last_ones() -> None:
    engine = SlowEngine()
    with ahead(engine, "algo=dapo", "algo.group_size=2", "algo.sampling.max_resamples=2") as run:
        assert run.update() == [4, 5]
        assert (run.metrics["dapo/filtered_groups"], run.metrics["dapo/resampled_batches"]) == (6, 2)
        assert run.state.episodes == 12


def test_a_judge_looks_at_no_more_than_it_needs() -> None:
    looks = [Look(0, 1, True), Look(1, 2, False), Look(3, 2, True), Look(4, None, False), Look(5, 3, True)]
    assert judge(looks, oldest=2, wanted=2, most=6) == Verdict([0], [3], [1, 4], True)
    assert judge(looks, oldest=2, wanted=3, most=6) == Verdict([0], [3, 5], [1, 4], False)
    assert judge(looks, oldest=2, wanted=3, most=2) == Verdict([0], [3], [1], True)
    assert judge(looks, oldest=3, wanted=1, most=1) == Verdict([0, 1, 3], [], [4], True)


def test_what_nobody_can_judge_is_masked_and_counted() -> None:
    with ahead(SlowEngine(lambda turn: BREAK if turn == (1, 0, 0) else SOLVE)) as run:
        run.update()
    assert run.metrics["rollout/masked_trajectories"] == 2  # the other one of the group has nobody left
    with ahead(SlowEngine(lambda turn: BREAK)) as run, pytest.raises(EnvironmentsDown):
        run.update()


class Asking(Walks):
    """A server that fails the n-th question."""

    def __init__(self, *fails: int) -> None:
        self.fails, self.tallies = fails, [Tally("the oracle")]

    def make_env(self, task: Any) -> Any:
        env = super().make_env(task)

        def step(action: str) -> Any:
            try:
                with self.tallies[0].question():
                    if self.tallies[0].asked in self.fails:
                        raise NoAnswerError("nobody there")
            except NoAnswerError:
                pass
            return env.step(action)

        return SimpleNamespace(task=task, reset=env.reset, step=step)


def test_calls_without_an_answer_count_for_the_update_after_them() -> None:
    """The eighth question is that of an episode which the first update does not wait for."""
    engine = SlowEngine()
    engine.held = turns(3)
    with ahead(engine, "trainer.health.max_failed_calls=0.0", benchmark=Asking(8)) as run:
        run.update()
        engine.held = set()
        with pytest.raises(ServerDown, match=r"1 of \d+ calls of the oracle"):
            run.update()


def test_progress_is_of_what_the_update_needs() -> None:
    told: list[tuple[int, int]] = []
    with ahead(SlowEngine(takes=lambda turn: 0.01 * turn[0]), progress=lambda *numbers: told.append(numbers)) as run:
        run.update(settles=False)
    assert told[-1] == (4, 4)
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("words", "kind", "warns"),
    [
        ([*VLLM, "rollout.max_staleness=1"], AheadSource, True),
        ([*VLLM, "rollout.max_staleness=1", "algo.loss.importance_cap=2.0"], AheadSource, False),
        ([], Source, False),
    ],
)
def test_max_staleness_says_which_source_and_what_weighs_it(
    words: list[str], kind: type, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine: Any = SlowEngine()
    games: Any = Walks()
    with open_source(tiny_config(*words), engine, games, make_agent) as source:
        assert type(source) is kind
        with source.paused():
            pass
    assert not threads()
    assert ("algo.loss.importance_cap=2 weighs them" in caplog.text) is warns
