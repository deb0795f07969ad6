"""G2PO (arXiv 2606.22995) by hand."""

import pytest
import torch

from empg_cli.algorithms.g2po import edge_relative, visited_values
from empg_cli.algorithms.gigpo import anchor_groups

# One task, two attempts, of which the first succeeds with 8:
#   a: hall -> kitchen -> solved
#   b: hall -> garden -> hall -> given up
SEEN = ["hall", "kitchen", "hall", "garden", "hall"]
NEXT_S = torch.tensor([1, -1, 3, 4, -1])
RETURN_S = torch.tensor([8.0, 8.0, 0.0, 0.0, 0.0])
GROUP_S = torch.zeros(5, dtype=torch.long)
ANCHOR_S = anchor_groups(SEEN, GROUP_S)
# gamma .5. Two steps from the hall 8 is worth 2, from the kitchen 4. The hall was visited three times: (2 + 0 + 0) / 3.
VALUE = [2 / 3, 4.0, 2 / 3, 0.0, 2 / 3]
# after the steps: kitchen 4, end 8, garden 0, hall 2/3, end 0
NOTHING_S = torch.zeros(5)


def advantages(**knobs):
    knobs = {"scale_by_std": False, "penalty_S": NOTHING_S} | knobs
    value_S = torch.tensor(VALUE, dtype=torch.double)
    return edge_relative(value_S, RETURN_S, NEXT_S, ANCHOR_S, GROUP_S, **knobs).tolist()


def test_the_value_of_an_observation_is_the_mean_of_its_visits():
    value_S = visited_values(RETURN_S, NEXT_S, ANCHOR_S, gamma=0.5)
    assert value_S.tolist() == pytest.approx(VALUE)


def test_a_step_is_compared_here_and_its_gain_in_the_whole_task():
    # Leaving the hall: 4, 0 and 0, mean 4/3: 8/3, -4/3, -4/3; kitchen and garden were left once.
    # Gains: 4 - 2/3 = 10/3, 8 - 4 = 4, 0 - 2/3, 2/3 - 0, 0 - 2/3; mean (10/3 + 4 - 2/3) / 5 = 4/3.
    here = [8 / 3, 0.0, -4 / 3, 0.0, -4 / 3]
    gain = [2.0, 8 / 3, -2.0, -2 / 3, -2.0]
    assert advantages() == pytest.approx([a + b for a, b in zip(here, gain, strict=True)], abs=1e-6)


def test_divided_by_the_deviation_of_each_comparison():
    # hall: 8/3 and twice -4/3, deviation sqrt(32)/3; gains: squares 4 + 64/9 + 4 + 4/9 + 4 = 176/9, a fifth is 176/45
    here, gain = 32**0.5 / 3, (176 / 45) ** 0.5
    expected = [
        8 / 3 / here + 2 / gain,
        8 / 3 / gain,
        -4 / 3 / here - 2 / gain,
        -2 / 3 / gain,
        -4 / 3 / here - 2 / gain,
    ]
    assert advantages(scale_by_std=True) == pytest.approx(expected, abs=1e-5)


def test_an_invalid_action_counts_where_it_was_taken_and_not_in_the_gain():
    # the last step of b costs .3: leaving the hall is worth 4, 0, -.3, mean 3.7/3
    penalty_S = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3])
    changed = [a - b for a, b in zip(advantages(penalty_S=penalty_S), advantages(), strict=True)]
    assert changed == pytest.approx([0.1, 0.0, 0.1, 0.0, -0.2], abs=1e-6)


def test_the_same_text_in_two_tasks_has_two_values():
    group_S = torch.tensor([3, 3, 1, 1, 1])
    value_S = visited_values(RETURN_S, NEXT_S, anchor_groups(SEEN, group_S), gamma=0.5)
    assert value_S.tolist() == [2.0, 4.0, 0.0, 0.0, 0.0]


def test_a_task_whose_attempts_all_failed_teaches_nothing():
    failed_S = torch.zeros(5)
    value_S = visited_values(failed_S, NEXT_S, ANCHOR_S)
    assert edge_relative(value_S, failed_S, NEXT_S, ANCHOR_S, GROUP_S, penalty_S=NOTHING_S).tolist() == [0.0] * 5
