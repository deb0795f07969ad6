"""Rows and step tensors against a slow transcription: which step follows which, and where its tokens stand."""

from __future__ import annotations

import math

import pytest
import torch

from empg_cli.algorithms.assemble import credit_parts
from empg_cli.algorithms.table import StepTable, merge_tables, step_table
from empg_cli.model.batch import make_batch
from empg_cli.types import Trajectory
from tests.support.made import made_trajectories
from tests.support.tiny import tiny_config

TURNS = [3, 1, 4, 0, 2, 5]
"""One episode ended before its first step."""


def following(trajectories: list[Trajectory]) -> list[int]:
    """For every step the place of the same episode's next step, looked up by (episode, turn); -1 without one."""
    names = [(number, turn) for number, played in enumerate(trajectories) for turn in range(len(played.steps))]
    place = {name: row for row, name in enumerate(names)}
    return [place.get((number, turn + 1), -1) for number, turn in names]


def test_the_transcription_by_hand() -> None:
    # episodes of 3, 1, 4, 0, 2 and 5 steps in rows 0-2, 3, 4-7, none, 8-9 and 10-14
    assert following(made_trajectories(TURNS)) == [1, 2, -1, -1, 5, 6, 7, -1, 9, -1, 11, 12, 13, 14, -1]


@pytest.mark.parametrize("append_only", [True, False])
def test_next_is_the_following_step_of_the_same_episode(append_only: bool) -> None:
    trajectories = made_trajectories(TURNS)
    batch = make_batch(trajectories, append_only=append_only)
    assert batch.next_S.tolist() == following(trajectories)
    table = step_table(batch)
    assert table.next_S.tolist() == following(trajectories)
    assert table.trajectory_S.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 4, 4, 5, 5, 5, 5, 5]


def test_next_survives_the_merging_of_ranks() -> None:
    trajectories = made_trajectories(TURNS)
    ranks: list[StepTable] = [
        step_table(make_batch(part, append_only=False)) for part in (trajectories[:2], trajectories[2:])
    ]
    assert merge_tables(ranks).next_S.tolist() == following(trajectories)


@pytest.mark.parametrize("append_only", [True, False])
def test_the_bonus_of_a_step_is_the_clarity_of_the_following_one(append_only: bool) -> None:
    """From the sampled entropies to f(H_{t+1}) in one go, with plain numbers on the other side."""
    trajectories = made_trajectories(TURNS)
    parts, _ = credit_parts(tiny_config("algo=empg").algo, make_batch(trajectories, append_only=append_only))
    episodes = [[sum(s.entropies) / len(s.entropies) for s in played.steps] for played in trajectories]
    low, high = (extreme(h for steps in episodes for h in steps) for extreme in (min, max))
    expected = []
    for steps in episodes:
        expected += [math.exp(-(h - low) / (high - low)) for h in steps[1:]] + ([0.0] if steps else [])
    assert parts.clarity_S is not None
    assert parts.clarity_S.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("append_only", [True, False])
def test_the_tokens_of_a_step_stand_behind_all_that_it_was_answered_from(append_only: bool) -> None:
    trajectories = made_trajectories(TURNS)
    batch = make_batch(trajectories, append_only=append_only)
    step = 0
    for played in trajectories:
        read: list[int] = []
        for turn in played.steps:
            read = [*read, *turn.prompt_ids] if append_only else turn.prompt_ids
            row, start = batch.row_ids[int(batch.step_row_S[step])].tolist(), int(batch.step_start_S[step])
            assert row[:start] == read
            read = read + turn.response_ids
            assert row[: len(read)] == read
            size = len(turn.response_ids)
            assert batch.mask_ST[step].tolist() == [True] * size + [False] * (batch.mask_ST.shape[1] - size)
            assert batch.token_ST[step, :size].tolist() == turn.response_ids
            torch.testing.assert_close(batch.entropy_ST[step, :size], torch.tensor(turn.entropies))
            torch.testing.assert_close(batch.old_logprob_ST[step, :size], torch.tensor(turn.logprobs))
            step += 1
    assert step == batch.num_steps == sum(TURNS)
    assert len(batch.row_ids) == (len(TURNS) - 1 if append_only else sum(TURNS))


def test_what_the_controls_of_empg_and_step_credit_read_is_in_the_table() -> None:
    """Also where ranks put their tables together."""
    trajectories = made_trajectories(TURNS)
    steps = [step for played in trajectories for step in played.steps]
    for number, step in enumerate(steps):
        step.well_formed, step.admissible, step.score = number % 3 != 0, number % 4 != 0, number / 8
    for number, played in enumerate(trajectories):
        played.success = number % 2 == 0
    whole = step_table(make_batch(trajectories, append_only=False))
    halves = [step_table(make_batch(part, append_only=True)) for part in (trajectories[:2], trajectories[2:])]
    for table in (whole, merge_tables(halves)):
        assert table.is_valid_S.tolist() == [bool(n % 3 and n % 4) for n in range(len(steps))]
        assert table.score_S.tolist() == [number / 8 for number in range(len(steps))]
        assert table.is_won_N.tolist() == [number % 2 == 0 for number in range(len(trajectories))]
        assert table.first_entropy_S.tolist() == pytest.approx([step.entropies[0] for step in steps])
