"""GraphGPO (arXiv 2605.26684) by hand."""

import pytest
import torch

from empg_cli.algorithms.gigpo import anchor_groups
from empg_cli.algorithms.graphgpo import distance_to_success, graph_relative

# One task, three attempts, of which the first succeeds:
#   a: hall -> kitchen -> fridge -> solved
#   b: hall -> kitchen -> garden -> given up
#   c: hall -> garden  -> shed   -> given up
# From the fridge one step is left, from the kitchen two, from the hall three; from garden and shed none is known: four.
SEEN = ["hall", "kitchen", "fridge", "hall", "kitchen", "garden", "hall", "garden", "shed"]
NEXT_S = torch.tensor([1, 2, -1, 4, 5, -1, 7, 8, -1])
WON_S = torch.tensor([True] * 3 + [False] * 6)
GROUP_S = torch.zeros(9, dtype=torch.long)
ANCHOR_S = anchor_groups(SEEN, GROUP_S)
#             to:  kitchen fridge solved kitchen garden end  garden shed end
DISTANCE = [2.0, 1.0, 0.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0]


def test_distances_go_over_the_steps_of_all_attempts():
    assert distance_to_success(ANCHOR_S, NEXT_S, WON_S, GROUP_S).tolist() == DISTANCE


def test_a_step_of_a_failure_towards_a_place_that_led_to_success_is_as_good_as_that_of_the_success():
    # worth 10 * .5^d. hall: 2.5, 2.5, .625, mean 1.875; kitchen: 5, .625, mean 2.8125; garden: both .625; others alone
    advantage_S = graph_relative(
        torch.tensor(DISTANCE), ANCHOR_S, decay=0.5, scale_by_std=False, penalty_S=torch.zeros(9)
    )
    assert advantage_S.tolist() == pytest.approx([0.625, 2.1875, 0.0, 0.625, -2.1875, 0.0, -1.25, 0.0, 0.0])


def test_divided_by_the_deviation_among_the_steps_that_answered_the_same():
    # hall: .625, .625, -1.25 over sqrt(2 * .625^2) = .625 sqrt(2); kitchen: half of the difference
    advantage_S = graph_relative(torch.tensor(DISTANCE), ANCHOR_S, decay=0.5, penalty_S=torch.zeros(9))
    half = 0.5**0.5
    assert advantage_S.tolist() == pytest.approx([half, 1.0, 0.0, half, -1.0, 0.0, -2 * half, 0.0, 0.0], abs=1e-5)


def test_an_invalid_action_is_worth_less_than_a_valid_one_that_led_to_the_same():
    # garden: .625 - .5 and .625
    penalty_S = torch.tensor([0.0] * 5 + [0.5] + [0.0] * 3)
    advantage_S = graph_relative(torch.tensor(DISTANCE), ANCHOR_S, decay=0.5, scale_by_std=False, penalty_S=penalty_S)
    assert advantage_S[[5, 7]].tolist() == pytest.approx([-0.25, 0.25])


def test_a_task_that_nobody_solved_teaches_nothing():
    distance_S = distance_to_success(ANCHOR_S, NEXT_S, torch.zeros(9, dtype=torch.bool), GROUP_S)
    assert distance_S.tolist() == [1.0] * 9
    assert graph_relative(distance_S, ANCHOR_S, penalty_S=torch.zeros(9)).tolist() == [0.0] * 9


def test_ways_do_not_lead_from_one_task_into_another():
    # the same texts in two tasks; the second was not solved
    group_S = torch.tensor([7] * 3 + [2] * 6)
    anchor_S = anchor_groups(SEEN, group_S)
    assert distance_to_success(anchor_S, NEXT_S, WON_S, group_S).tolist() == [2.0, 1.0, 0.0] + [1.0] * 6


def test_a_loop_is_no_shorter_way():
    # hall -> hall -> hall -> solved: only the last step leaves the hall
    anchor_S, next_S = torch.zeros(3, dtype=torch.long), torch.tensor([1, 2, -1])
    won_S, group_S = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.long)
    assert distance_to_success(anchor_S, next_S, won_S, group_S).tolist() == [1.0, 1.0, 0.0]
