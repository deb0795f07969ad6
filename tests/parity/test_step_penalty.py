"""penalty=step against loops after verl-agent's rules, and by hand where ours is not theirs.

The rules (langfengQ/verl-agent, read in forks that keep its files: verl/trainer/ppo/ray_trainer.py
`apply_invalid_action_penalty`, `compute_advantage`; verl/trainer/ppo/core_algos.py `compute_grpo_outcome_advantage`;
gigpo/core_gigpo.py): a row is a step and scores the return of its episode, less the penalty if its action is invalid;
mean and std (n - 1) of a task are over its rows; step returns of GiGPO are discounted before the penalty comes off.
"""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from empg_cli.algorithms.assemble import compute_credit
from empg_cli.config.algo import Algo
from empg_cli.model.batch import make_batch
from empg_cli.types import Step, Task, Trajectory

CONF = Path(__file__).parents[2] / "conf" / "algo"
PRESETS = sorted(path.stem for path in CONF.glob("*.yaml"))
COST = 0.1


def algo(name: str, **advantage: Any) -> Algo:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    values["advantage"] |= advantage
    return Algo(**values)


def episode(group: int, index: int, rewards: list[float], invalid: list[bool], rooms: list[str]) -> Trajectory:
    steps = [
        Step([1], [2], [-0.5], [0.5], observation=room, reward=reward - COST * bad, penalty=COST * bad)
        for reward, bad, room in zip(rewards, invalid, rooms, strict=True)
    ]
    return Trajectory(Task(f"t{group}", "any", "train"), group, index, steps)


def random_episodes(rng: random.Random) -> list[Trajectory]:
    """Three tasks, four attempts of one to six steps; some tasks fail throughout."""
    played = []
    for group in range(3):
        for index in range(4):
            length = rng.randint(1, 6)
            won = group > 0 and rng.random() < 0.5
            rewards = [0.0] * (length - 1) + [10.0 * won]
            invalid = [rng.random() < 0.4 for _ in range(length)]
            played.append(episode(group, index, rewards, invalid, [rng.choice("abc") for _ in range(length)]))
    return played


def rows_of(played: list[Trajectory]) -> list[tuple[Trajectory, int]]:
    return [(trajectory, turn) for trajectory in played for turn in range(len(trajectory.steps))]


def cost(step: Step) -> float:
    return COST if step.penalty else 0.0


def normalised(values: list[float], keys: list[Any]) -> list[float]:
    members: dict[Any, list[float]] = {}
    for value, key in zip(values, keys, strict=True):
        members.setdefault(key, []).append(value)
    result = []
    for value, key in zip(values, keys, strict=True):
        std = statistics.stdev(members[key]) if len(members[key]) > 1 else 1.0
        result.append((value - statistics.mean(members[key])) / (std + 1e-6))
    return result


def their_grpo(played: list[Trajectory]) -> list[float]:
    scores, tasks = [], []
    for trajectory, turn in rows_of(played):
        episode_return = sum(step.reward + cost(step) for step in trajectory.steps)
        scores.append(episode_return - cost(trajectory.steps[turn]))
        tasks.append(trajectory.group)
    return normalised(scores, tasks)


def their_step_part(played: list[Trajectory], gamma: float) -> list[float]:
    returns, anchors = [], []
    for trajectory, turn in rows_of(played):
        discounted = 0.0
        for later in reversed(trajectory.steps[turn:]):
            discounted = later.reward + cost(later) + gamma * discounted
        returns.append(discounted - cost(trajectory.steps[turn]))
        anchors.append((trajectory.group, trajectory.steps[turn].observation))
    return normalised(returns, anchors)


@pytest.mark.parametrize("seed", range(30))
def test_grpo_over_steps_is_verl_agents(seed: int) -> None:
    played = random_episodes(random.Random(seed))
    settings = algo("grpo", penalty="step", statistics="step", unbiased_std=True)
    credit_S, _ = compute_credit(settings, make_batch(played, append_only=seed % 2 == 0))
    torch.testing.assert_close(credit_S, torch.tensor(their_grpo(played)), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_gigpo_over_steps_is_verl_agents(seed: int) -> None:
    played = random_episodes(random.Random(seed))
    settings = algo("gigpo", penalty="step", statistics="step", unbiased_std=True)
    credit_S, _ = compute_credit(settings, make_batch(played, append_only=False))
    parts = zip(their_grpo(played), their_step_part(played, 0.95), strict=True)
    expected_S = torch.tensor([whole + step for whole, step in parts])
    torch.testing.assert_close(credit_S, expected_S, atol=5e-5, rtol=1e-5)


FAILURES = [
    episode(0, 0, [0.0, 0.0], [True, False], ["a", "a"]),
    episode(0, 1, [0.0], [False], ["a"]),
]
"""Scores -0.1, 0 and 0."""
MIXED = [
    episode(0, 0, [0.0, 0.0], [True, False], ["a", "a"]),
    episode(0, 1, [10.0], [False], ["a"]),
]
"""Scores -0.1, 0 and 10; the trajectories' means are -0.05 and 10."""


def credit(settings: Algo, played: list[Trajectory]) -> list[float]:
    return compute_credit(settings, make_batch(played, append_only=False))[0].tolist()


def test_where_everything_failed_the_well_formed_step_is_not_blamed() -> None:
    # episode: returns -0.1 and 0, mean -0.05, std 0.05: the well-formed second step of the first episode gets -1, too
    by_episode = credit(algo("grpo"), FAILURES)
    assert by_episode == pytest.approx([-1.0, -1.0, 1.0], abs=1e-4)
    # step, rows: mean -1/30, std over n = sqrt(2)/30: -2/30, 1/30 and 1/30 of it
    by_step = credit(algo("grpo", penalty="step", statistics="step"), FAILURES)
    assert by_step == pytest.approx([-(2**0.5), 0.5**0.5, 0.5**0.5], abs=1e-4)


def test_every_trajectory_counts_once() -> None:
    # weights 1/2, 1/2, 1: mean -0.05/2 = -0.025; variance (0.075^2/2 + 0.025^2/2 + 0.025^2)/2 = 0.001875
    settings = algo("grpo", penalty="step", statistics="trajectory")
    assert credit(settings, FAILURES) == pytest.approx([-(3**0.5), 3**-0.5, 3**-0.5], abs=1e-3)
    # mean (-0.05 + 10)/2 = 4.975
    unscaled = algo("dr_grpo", penalty="step")
    assert credit(unscaled, MIXED) == pytest.approx([-5.075, -4.975, 5.025], abs=1e-5)


def test_leave_one_out_compares_with_the_other_trajectories() -> None:
    # -0.1 - 10, 0 - 10, 10 - (-0.05)
    assert credit(algo("rloo", penalty="step"), MIXED) == pytest.approx([-10.1, -10.0, 10.05], abs=1e-5)
    # divided by the std with trajectories counted once: mean 4.975, variance
    # (5.075^2/2 + 4.975^2/2 + 5.025^2)/2 = 25.251875, std 5.025125
    scaled = algo("rloo", penalty="step", scale_by_std=True)
    assert credit(scaled, MIXED) == pytest.approx([-2.009900, -1.990000, 1.999950], abs=1e-5)


@pytest.mark.parametrize("name", ["reinforce_pp", "reinforce_pp_baseline"])
def test_reinforce_whitens_scores(name: str) -> None:
    # Rewards-to-go less the own penalty: -0.1, 0, 10. Mean 3.3, variance (3.4^2 + 3.3^2 + 6.7^2)/2 = 33.67. A baseline
    # is the same number for all three, so whitening takes it out again.
    settings = algo(name, penalty="step", statistics="step")
    root = 33.67**0.5
    assert credit(settings, MIXED) == pytest.approx([-3.4 / root, -3.3 / root, 6.7 / root], abs=1e-5)


def test_a_penalty_is_not_discounted_into_earlier_steps() -> None:
    # The last step is invalid. Returns with gamma 0.5, step: 0, -0.1 and 0; episode: -0.05, -0.1 and 0.
    late = [episode(0, 0, [0.0, 0.0], [False, True], ["a", "a"]), episode(0, 1, [0.0], [False], ["a"])]
    by_step = credit(algo("reinforce_pp", penalty="step", statistics="step", gamma=0.5), late)
    assert by_step == pytest.approx([3**-0.5, -2 * 3**-0.5, 3**-0.5], abs=1e-4)
    by_episode = credit(algo("reinforce_pp", statistics="step", gamma=0.5), late)
    assert by_episode == pytest.approx([0.0, -1.0, 1.0], abs=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_penalties_in_the_return_and_without_any_both_are_the_same(name: str) -> None:
    assert algo(name).advantage.penalty == "episode"
    rng = random.Random(7)
    clean = [
        episode(group, index, [0.0] * index + [10.0 * (index == group)], [False] * (index + 1), ["a"] * (index + 1))
        for group in range(2)
        for index in range(3)
    ]
    rng.shuffle(clean)
    assert credit(algo(name, penalty="step"), clean) == pytest.approx(credit(algo(name), clean), abs=1e-6)


def test_the_overlong_penalty_is_earned_once_by_the_last_step() -> None:
    # Three tokens of at most three with a buffer of one: the first episode loses 1. Rewards-to-go with gamma 0.5:
    # -0.5 and -1; the other episode 0. Mean -0.5, variance 0.25. (On every step it would be -1.5, -1 and 0.)
    long = episode(0, 0, [0.0, 0.0], [False, False], ["a", "a"])
    long.steps[0].response_ids, long.steps[0].logprobs, long.steps[0].entropies = [2, 2], [-0.5] * 2, [0.5] * 2
    played = [long, episode(0, 1, [0.0], [False], ["a"])]
    for penalty in ("episode", "step"):
        settings = algo("reinforce_pp", penalty=penalty, statistics="step", gamma=0.5)
        overlong = algo("dapo").overlong.model_copy(update={"limit": 3, "buffer": 1})
        settings = settings.model_copy(update={"overlong": overlong})
        assert credit(settings, played) == pytest.approx([0.0, -1.0, 1.0], abs=1e-4)


def test_the_overlong_penalty_is_part_of_every_steps_score() -> None:
    # As in the test above the first episode loses 1: scores -1, -1 and 0 over steps; mean -2/3, std sqrt(2)/3.
    long = episode(0, 0, [0.0, 0.0], [False, False], ["a", "a"])
    long.steps[0].response_ids, long.steps[0].logprobs, long.steps[0].entropies = [2, 2], [-0.5] * 2, [0.5] * 2
    overlong = algo("dapo").overlong.model_copy(update={"limit": 3, "buffer": 1})
    settings = algo("grpo", penalty="step", statistics="step").model_copy(update={"overlong": overlong})
    played = [long, episode(0, 1, [0.0], [False], ["a"])]
    assert credit(settings, played) == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5], abs=1e-4)
