"""One member of a group cannot be judged: the numbers of the others, by hand, in every statistic that could see it."""

from __future__ import annotations

import pytest

from empg_cli.algorithms.assemble import compute_credit, loss_weights
from empg_cli.config import load
from empg_cli.model.batch import make_batch
from empg_cli.rollout.masking import EnvironmentsDown, count_masked, trainable
from empg_cli.rollout.outcomes import describe_rollout
from empg_cli.types import Status, Step, Task, Trajectory


def episode(group: int, reward: float, entropies: list[float], *, status: Status | None = None) -> Trajectory:
    """One step per entropy, two tokens each; the reward comes last."""
    steps = [Step([1], [2, 3], [-1.0, -1.0], [value, value]) for value in entropies]
    steps[-1].reward = reward
    status = status or (Status.SUCCESS if reward else Status.FAILED)
    solved = status is Status.SUCCESS
    info = {"searches": float(len(entropies))}
    error = "JudgeError: down" if status is Status.ENV_ERROR else None
    task = Task(f"t{group}", "2hop", "train")
    return Trajectory(task, group, 0, steps, status, float(solved), solved, error, info)


def unjudged(group: int, entropies: list[float]) -> Trajectory:
    return episode(group, 0.0, entropies, status=Status.ENV_ERROR)


@pytest.fixture
def played() -> list[Trajectory]:
    return [
        episode(0, 1.0, [0.2]),
        unjudged(0, [9.0, 9.0, 9.0]),  # an extreme entropy that must not reach EMPG's min-max
        episode(0, 0.0, [0.4]),
        episode(0, 1.0, [0.6]),
        episode(1, 0.0, [0.3, 0.5]),
        episode(1, 1.0, [0.3]),
        unjudged(2, [0.1]),
        episode(2, 1.0, [0.1]),  # alone in its group from now on
    ]


def test_advantages_are_those_of_the_remaining_members(played: list[Trajectory]) -> None:
    # Group 0: rewards 1, 0, 1; mean 2/3, std sqrt(2/9) = 0.471405: (1/3) / 0.471405 = 0.707107, -1.414214, 0.707107.
    # (With the unjudged one as a 0 they would be 1, -1, 1.) Group 1: 0 and 1, mean 1/2, std 1/2: -1, -1, +1 by step.
    batch = make_batch(trainable(played), append_only=True)
    credit_S, metrics = compute_credit(load(["algo=grpo", "algo.advantage.scale_by_std=true"]).algo, batch)
    expected = [0.707107, -1.414214, 0.707107, -1.0, -1.0, 1.0]
    assert credit_S.tolist() == pytest.approx(expected, abs=1e-4)  # eps = 1e-6 beside the std
    # (1 + 0 + 1 + 0 + 1) / 5 trajectories
    assert metrics["critic/rewards/mean"] == pytest.approx(0.6)
    assert metrics["group/zero_std_frac"] == 0.0  # groups 0 and 1; group 2 is gone


def test_empg_statistics_leave_it_out(played: list[Trajectory]) -> None:
    # Step entropies 0.2 0.4 0.6 0.3 0.5 0.3: min 0.2, max 0.6, so H01 = 0, 1/2, 1, 1/4, 3/4, 1/4.
    # exp(-H01): 1, 0.606531, 0.367879, 0.778801, 0.472367, 0.778801, mean 4.004379 / 6 = 0.667396; g = exp / mean.
    batch = make_batch(trainable(played), append_only=True)
    _, metrics = compute_credit(load(["algo=empg", "algo.credit.k=1.0"]).algo, batch)
    assert metrics["empg/step_entropy/mean"] == pytest.approx(2.3 / 6, abs=1e-6)
    assert metrics["empg/weight/max"] == pytest.approx(1 / 0.667396, abs=1e-5)
    assert metrics["empg/weight/min"] == pytest.approx(0.367879 / 0.667396, abs=1e-5)


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ("token", [1 / 12] * 6),  # 6 steps of 2 tokens
        ("step", [1 / 6 / 2] * 6),
        # 5 trajectories; the fourth one's share is spread over 4 tokens
        ("trajectory", [1 / 5 / 2, 1 / 5 / 2, 1 / 5 / 2, 1 / 5 / 4, 1 / 5 / 4, 1 / 5 / 2]),
    ],
)
def test_loss_denominators_leave_it_out(played: list[Trajectory], weighting: str, weights: list[float]) -> None:
    batch = make_batch(trainable(played), append_only=True)
    settings = load([f"algo.loss.weighting={weighting}"]).algo.loss
    weight_ST = loss_weights(settings, batch.mask_ST, batch.trajectory_S)
    assert weight_ST[:, 0].tolist() == pytest.approx(weights)
    assert float(weight_ST.sum()) == pytest.approx(1.0)


def test_success_is_counted_over_what_was_judged(played: list[Trajectory]) -> None:
    metrics = describe_rollout(played, "deepsearch")
    # 6 of 8 were judged (the one alone in its group is a fair episode); 1, 0, 1, 0, 1, 1 of them solved
    assert metrics["episode/success_rate"] == pytest.approx(4 / 6)
    assert metrics["episode/reward/mean"] == pytest.approx(4 / 6)
    assert metrics["episode/length/mean"] == pytest.approx(7 / 6)
    assert metrics["deepsearch/searches"] == pytest.approx(7 / 6)
    assert metrics["episode/env_error_frac"] == 0.25
    assert count_masked(played) == 3  # both unjudged ones and the last of group 2


def test_nothing_judged_is_a_stop_that_says_why() -> None:
    with pytest.raises(EnvironmentsDown, match="2 of 2 episodes ended in an environment error, such as: JudgeError"):
        count_masked([unjudged(0, [0.1]), unjudged(0, [0.2])])
    assert count_masked([]) == 0
