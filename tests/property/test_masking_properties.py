"""A masked episode is as good as one that was never sampled."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.algorithms.assemble import compute_credit, loss_weights
from empg_cli.config import load
from empg_cli.config.schema import TrainConfig
from empg_cli.model.batch import make_batch
from empg_cli.rollout.masking import trainable
from empg_cli.types import Batch, Status, Step, Task, Trajectory

PRESETS = (
    "grpo",
    "dapo_empg",
    "empg",
    "gigpo",
    "hgpo",
    "graphgpo",
    "g2po",
    "turn_credit",
    "rloo",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "gspo",
)


@cache
def config(preset: str) -> TrainConfig:
    return load([f"algo={preset}"])


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    made = []
    for entropies in draw(
        st.lists(st.lists(st.floats(0, 3, width=32), min_size=1, max_size=3), min_size=1, max_size=3)
    ):
        observation = draw(st.sampled_from("abc"))
        step = Step([1], [2] * len(entropies), [-1.0] * len(entropies), entropies, observation=observation)
        step.reward = draw(st.sampled_from([0.0, 0.5, 1.0]))
        step.score = draw(st.sampled_from([0.0, 0.5, 1.0]))
        made.append(step)
    return made


@st.composite
def rollouts(draw: st.DrawFn) -> list[Trajectory]:
    """Groups of 2 to 4 that keep at least two scored members, in any order of groups."""
    played = []
    for group in draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True)):
        failed = draw(st.lists(st.booleans(), min_size=0, max_size=2))
        for index, is_unscored in enumerate([False, *failed, False]):
            status = Status.ENV_ERROR if is_unscored else Status.FAILED
            played.append(Trajectory(Task(f"t{group}", "k", "train"), group, index, draw(steps()), status))
    return played


def same(a: Batch, b: Batch) -> bool:
    for field in fields(Batch):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, torch.Tensor):
            equal = one.equal(other)
        elif field.name == "row_ids":
            equal = len(one) == len(other) and all(x.equal(y) for x, y in zip(one, other, strict=True))
        else:
            equal = one == other
        if not equal:
            return False
    return True


@settings(max_examples=60, deadline=None)
@given(rollouts(), st.sampled_from(PRESETS), st.booleans())
def test_masked_is_absent(played: list[Trajectory], preset: str, append_only: bool) -> None:
    never_sampled = [trajectory for trajectory in played if trajectory.status is not Status.ENV_ERROR]
    batch = make_batch(trainable(played), append_only=append_only)
    expected = make_batch(never_sampled, append_only=append_only)
    assert same(batch, expected)
    algo = config(preset).algo
    credit_S, metrics = compute_credit(algo, batch)
    assert credit_S.equal(compute_credit(algo, expected)[0])
    assert metrics == compute_credit(algo, expected)[1]
    weight_ST = loss_weights(algo.loss, batch.mask_ST, batch.trajectory_S)
    assert weight_ST.equal(loss_weights(algo.loss, expected.mask_ST, expected.trajectory_S))


@settings(max_examples=30, deadline=None)
@given(rollouts(), rollouts())
def test_a_group_without_two_scored_members_is_gone(played: list[Trajectory], others: list[Trajectory]) -> None:
    for trajectory in others:
        trajectory.group += 1000
        trajectory.status = Status.ENV_ERROR
    others[0].status = Status.FAILED  # alone: nothing to compare it with
    assert trainable([*others, *played]) == trainable(played)
