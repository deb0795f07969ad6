"""What an update plays: fresh tasks and fresh random numbers in every rollout, compared by the task's own reward."""

from __future__ import annotations

from typing import Any

from empg_cli.rollout.source import Source
from empg_cli.rollout.tasks import training_tasks
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Task
from tests.support.noting import MALFORMED, Games, NotingEngine, make_agent
from tests.support.tiny import tiny_config

DAPO = tiny_config("algo=dapo", "algo.sampling.max_resamples=2", "algo.group_size=2", "trainer.tasks_per_update=3")


def update(engine: NotingEngine, state: TrainState) -> Games:
    """The rollouts of one update: three, for no group is informative."""
    games: Any = Games()
    any_engine: Any = engine

    Source(DAPO, any_engine, games, make_agent).next(state)
    noted: Games = games
    return noted


def test_every_rollout_plays_the_next_tasks() -> None:
    state = TrainState()
    games = update(NotingEngine("look"), state)
    assert games.played[::2] == games.played[1::2]  # groups of two
    assert len(games.played) == 18 and len(set(games.played)) == 9
    assert state.next_task == 9


def test_no_two_episodes_draw_alike() -> None:
    """In one rollout, in its resamples, or in another update."""
    engine = NotingEngine("look")
    update(engine, TrainState(update=0))
    update(engine, TrainState(update=1))
    assert [len(numbers) for numbers in engine.drawn] == [6] * 6
    assert len({number for numbers in engine.drawn for number in numbers}) == 36


def test_a_penalty_makes_no_group_informative() -> None:
    """Both fail and one of them was malformed: the returns differ, the task's own rewards do not."""
    assert DAPO.benchmark.invalid_action_penalty > 0
    engine = NotingEngine("look", MALFORMED)
    update(engine, TrainState())
    assert len(engine.drawn) == 3, "with a full update no further rollout is played"


def test_the_stream_of_tasks_is_shuffled_anew_in_every_round() -> None:
    tasks = [Task(f"t{number}", "k", "train") for number in range(20)]
    rounds = [training_tasks(tasks, start, 20, seed=3) for start in (0, 20, 40)]
    for order in rounds:
        assert sorted(task.task_id for task in order) == sorted(task.task_id for task in tasks)
    assert len({tuple(task.task_id for task in order) for order in (*rounds, tasks)}) == 4
    assert training_tasks(tasks, 15, 10, seed=3) == rounds[0][15:] + rounds[1][:5]
    assert training_tasks(tasks, 0, 20, seed=4) != rounds[0]
