"""DAPO's dynamic sampling over random patterns of informative groups: whole groups, each once, full when it can be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.model.tiny import word_tokenizer
from empg_cli.rollout.engine import Completion
from empg_cli.rollout.outcomes import describe_batch
from empg_cli.rollout.source import Source
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Task, Trajectory
from tests.support.one_step import FAIL, SOLVE, OneStepEnv
from tests.support.scripted import ScriptedEngine
from tests.support.tiny import tiny_config

CODEC = CompactCodec(word_tokenizer(vocabulary()))
CFG = tiny_config("algo=dapo")
GROUP_SIZE = 2


class Batches:
    """An engine whose n-th rollout plays the n-th list of one-turn answers."""

    is_deterministic = True

    def __init__(self, batches: Sequence[Sequence[str]]) -> None:
        self._batches = iter(batches)
        self._rollout: object = None

    async def generate(self, prompt: Sequence[int], **options: Any) -> Completion[int]:
        if self._rollout is not (rollout := asyncio.get_running_loop()):  # each has an event loop of its own
            self._rollout = rollout
            answers = [[AlfworldCompact().phrase(action)] for action in next(self._batches)]
            self._engine = ScriptedEngine(CODEC, answers)
        return await self._engine.generate(prompt, **options)

    def close(self, episode: Hashable) -> None: ...


@st.composite
def patterns(draw: st.DrawFn) -> tuple[int, list[list[bool]]]:
    """Tasks of an update, and for each batch that may be played which of its groups are informative."""
    wanted = draw(st.integers(1, 6))
    batch = st.lists(st.booleans(), min_size=wanted, max_size=wanted)
    return wanted, draw(st.lists(batch, min_size=1, max_size=6))


def play(
    wanted: int, batches: list[list[bool]], max_resamples: int
) -> tuple[list[Trajectory], dict[str, float], TrainState]:
    """One update; an informative group has a success and a failure, the others two successes."""
    sampling = CFG.algo.sampling.model_copy(update={"max_resamples": max_resamples})
    algo = CFG.algo.model_copy(update={"sampling": sampling, "group_size": GROUP_SIZE})
    trainer = CFG.trainer.model_copy(update={"tasks_per_update": wanted})
    cfg = CFG.model_copy(update={"algo": algo, "trainer": trainer})
    benchmark: Any = SimpleNamespace(
        make_env=OneStepEnv, tasks=lambda split: [Task(f"t{number}", "k", split) for number in range(100)]
    )
    engine = Batches([[action for keep in batch for action in (SOLVE, FAIL if keep else SOLVE)] for batch in batches])

    def make_agent() -> Agent:
        return Agent(AlfworldCompact(), CODEC, context="transcript", history=0)

    state = TrainState()
    kept, metrics = Source(cfg, engine, benchmark, make_agent).next(state)
    return kept, metrics, state


@settings(deadline=None)  # a loaded machine is no fault
@given(patterns())
def test_every_kept_group_is_one_task_played_once(pattern: tuple[int, list[list[bool]]]) -> None:
    wanted, batches = pattern
    kept, _, _ = play(wanted, batches, len(batches) - 1)

    assert len({id(trajectory) for trajectory in kept}) == len(kept)
    assert all(size == GROUP_SIZE for size in Counter(t.group for t in kept).values())
    assert all(len({t.task.task_id for t in kept if t.group == group}) == 1 for group in {t.group for t in kept})
    assert len({(t.group, t.index) for t in kept}) == len(kept)
    informative = sum(map(sum, batches))
    if informative:
        assert len({t.group for t in kept}) == min(wanted, informative)
        assert all(len({t.success for t in kept if t.group == group}) == 2 for group in {t.group for t in kept})


def test_surplus_groups_are_cut() -> None:
    kept, _, _ = play(2, [[True, False], [True, True]], 3)
    assert [(t.group, t.index) for t in kept] == [(0, 0), (0, 1), (2, 0), (2, 1)]  # group 3 was one too many


def test_what_was_dropped_was_played_and_counts_as_cost() -> None:
    """Three batches of two groups of two: five groups of two successes, and one of a success and a failure."""
    kept, metrics, state = play(2, [[False, False], [False, True], [False, False]], 2)
    assert len(kept) == 2
    assert (state.episodes, state.env_steps) == (12, 12)
    assert state.tokens == 12 * len(CODEC.response("look"))
    assert metrics["episode/success_rate"] == 11 / 12  # of all that was played; half of those that train
    assert metrics["num_turns/mean"] == 1
    assert (metrics["dapo/filtered_groups"], metrics["dapo/resampled_batches"]) == (5, 2)
    assert describe_batch(kept) == {
        "batch/episodes": 2,
        "batch/groups": 1,
        "batch/success_rate": 0.5,
        "batch/reward/mean": 0.5,
    }
