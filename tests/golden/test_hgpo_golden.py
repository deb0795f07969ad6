"""HGPO (arXiv 2602.22817) by hand."""

import pytest
import torch

from empg_cli.algorithms.gigpo import anchor_groups, step_relative
from empg_cli.algorithms.hgpo import history_groups, history_relative

# One task, three attempts, of which the second and third succeed:
#   a: hall   -> kitchen   reward 0
#   b: hall   -> kitchen   reward 1
#   c: garden -> kitchen   reward 1
ANCHOR_S = anchor_groups(["hall", "kitchen", "hall", "kitchen", "garden", "kitchen"], torch.zeros(6, dtype=torch.long))
NEXT_S = torch.tensor([1, -1, 3, -1, 5, -1])
REWARD_S = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0])


def advantages(**knobs):
    return history_relative(REWARD_S, NEXT_S, ANCHOR_S, **({"gamma": 0.5, "scale_by_std": False} | knobs)).tolist()


def test_groups_are_nested_by_what_was_seen_before():
    first_S, second_S, third_S = history_groups(ANCHOR_S, NEXT_S, 2)
    assert first_S.tolist() == [0, 1, 0, 1, 2, 1]
    # two observations: a and b saw hall and kitchen, c garden and kitchen; first steps have no two
    assert (second_S < 0).tolist() == [True, False, True, False, True, False]
    assert second_S[1] == second_S[3] != second_S[5]
    assert third_S.tolist() == [-1] * 6


def test_closer_comparisons_weigh_more():
    # Returns with gamma .5: a 0, 0; b .5, 1; c .5, 1.
    # k = 1: hall 0 and .5, mean .25; kitchen 0, 1, 1, mean 2/3; the garden is alone.
    # k = 2: hall, kitchen 0 and 1, mean .5; garden, kitchen is alone.
    # Weights 2 and 3. a's kitchen: (2 (-2/3) + 3 (-1/2)) / 5 = -17/30; b's: (2/3 + 3/2) / 5 = 13/30; c's: 1/3 alone.
    expected = [-1 / 4, -17 / 30, 1 / 4, 13 / 30, 0.0, 1 / 3]
    assert advantages(history=1) == pytest.approx(expected, abs=1e-7)
    assert advantages(history=5) == pytest.approx(expected, abs=1e-7)  # nobody has seen that much


def test_alpha_tells_how_much_more():
    # alpha 0: both comparisons alike, (-2/3 - 1/2) / 2; alpha 2: weights 4 and 9, (-8/3 - 9/2) / 13
    assert advantages(history=1, alpha=0.0)[1] == pytest.approx(-7 / 12)
    assert advantages(history=1, alpha=2.0)[1] == pytest.approx(-43 / 78)


def test_divided_by_the_deviation_of_each_group():
    # kitchen: 0, 1, 1 has the population deviation sqrt(2)/3, so -sqrt(2) and sqrt(1/2); hall, kitchen: -1 and 1
    half = 0.5**0.5
    expected = [-1.0, (-4 * half - 3) / 5, 1.0, (2 * half + 3) / 5, 0.0, half]
    assert advantages(history=1, scale_by_std=True) == pytest.approx(expected, abs=1e-5)


def test_a_comparison_that_says_nothing_does_not_count():
    # Two of each pair read the same, with the same return; only the observation alone tells them apart.
    # k = 1: kitchen 0, 0, 1, 1: -1/2 and 1/2. k = 2: no difference within hall, kitchen, nor within garden, kitchen.
    anchor_S = torch.tensor([0, 1, 0, 1, 2, 1, 2, 1])
    next_S = torch.tensor([1, -1, 3, -1, 5, -1, 7, -1])
    reward_S = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    advantage_S = history_relative(reward_S, next_S, anchor_S, history=1, scale_by_std=False)
    assert advantage_S.tolist() == [0.0, -0.5, 0.0, -0.5, 0.0, 0.5, 0.0, 0.5]


def test_without_history_it_is_gigpos_step_part():
    for scale_by_std in (True, False):
        gigpo_S = step_relative(REWARD_S, NEXT_S, ANCHOR_S, gamma=0.5, scale_by_std=scale_by_std)
        assert advantages(history=0, scale_by_std=scale_by_std) == pytest.approx(gigpo_S.tolist(), abs=1e-7)


def test_a_penalty_is_its_own_steps_alone():
    # a's kitchen costs .5: returns 0 and -.5; k = 1: hall as before, kitchen -.5, 1, 1 with mean 1/2; k = 2: -.5 and 1
    penalty_S = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    expected = [-1 / 4, (-2 - 9 / 4) / 5, 1 / 4, (1 + 9 / 4) / 5, 0.0, 1 / 2]
    assert advantages(history=1, penalty_S=penalty_S) == pytest.approx(expected, abs=1e-7)
