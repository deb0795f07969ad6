"""Which tasks an evaluation plays, and with which random numbers."""

from __future__ import annotations

from typing import Any

from empg_cli.evaluation.evaluate import evaluate
from tests.support.noting import Games, NotingEngine, make_agent
from tests.support.tiny import tiny_config

CFG = tiny_config("benchmark.eval_tasks=3")


def played(*, seed: int = 0, sample: int = 0) -> tuple[list[str], list[float]]:
    games: Any = Games()
    engine: Any = NotingEngine("look")

    evaluate(engine, games, make_agent, CFG.benchmark, CFG.rollout, seed=seed, sample=sample)
    (numbers,) = engine.drawn
    return games.played, numbers


def test_the_first_tasks_of_the_split_are_played_once_and_in_order() -> None:
    assert played()[0] == ["t0", "t1", "t2"]


def test_seeds_and_samples_draw_anew_and_repeat_themselves() -> None:
    draws = [played(seed=seed, sample=sample)[1] for seed in (0, 1) for sample in (0, 1, 2)]
    assert len({number for numbers in draws for number in numbers}) == 18
    assert played(seed=1, sample=2)[1] == draws[-1]
