"""Turn credit (prime-rl, pull request 3282) by hand."""

import pytest
import torch

from empg_cli.algorithms.turn_credit import progress, spread_backwards, turn_credit
from empg_cli.benchmarks.base import StepResult
from empg_cli.rollout.episode import EpisodeRules, settle
from empg_cli.types import Step

# Scores after each step. a: .2, .6, .6, 1. b: 0, .5, .1
SCORE_S = torch.tensor([0.2, 0.6, 0.6, 1.0, 0.0, 0.5, 0.1])
NEXT_S = torch.tensor([1, 2, 3, -1, 5, 6, -1])
TRAJECTORY_S = torch.tensor([0, 0, 0, 0, 1, 1, 1])


def test_progress_is_change_and_the_first_step_made_none():
    assert progress(SCORE_S, NEXT_S).tolist() == pytest.approx([0, 0.4, 0, 0.4, 0, 0.5, -0.4])


def test_each_progress_is_shared_by_the_steps_that_led_to_it():
    # gamma .5. a: .4 of the second step over 1 and .5: .8/3, .4/3; .4 of the fourth over 1, .5, .25, .125, sum 1.875:
    # .64/3, .32/3, .16/3, .08/3. b: .5 over 1 and .5: 1/3, .5/3; -.4 over 1, .5, .25: -1.6/7, -.8/7, -.4/7
    a = [(0.4 + 0.08) / 3, (0.8 + 0.16) / 3, 0.32 / 3, 0.64 / 3]
    b = [0.5 / 3 - 0.4 / 7, 1 / 3 - 0.8 / 7, -1.6 / 7]
    credit_S = spread_backwards(progress(SCORE_S, NEXT_S), NEXT_S, gamma=0.5)
    assert credit_S.tolist() == pytest.approx(a + b)
    assert (sum(a), sum(b)) == (pytest.approx(0.8), pytest.approx(0.1))


@pytest.mark.parametrize(("gamma", "expected"), [(0.0, [0, 0.4, 0, 0.4]), (1.0, [0.3, 0.3, 0.1, 0.1])])
def test_the_step_alone_or_all_steps_alike(gamma, expected):
    # gamma 1: .4 over two steps and .4 over four
    credit_S = spread_backwards(progress(SCORE_S, NEXT_S), NEXT_S, gamma=gamma)
    assert credit_S[:4].tolist() == pytest.approx(expected)


def test_credit_moves_between_the_tokens_of_an_episode():
    # gamma 0: a 0, .4, 0, .4 of 1, 3, 1, 5 tokens: mean 3.2 / 10; b 0, .5, -.4 of 2, 2, 1: mean .6 / 5
    tokens_S = torch.tensor([1, 3, 1, 5, 2, 2, 1])
    shift_S = turn_credit(SCORE_S, NEXT_S, TRAJECTORY_S, tokens_S, gamma=0.0)
    assert shift_S.tolist() == pytest.approx([-0.32, 0.08, -0.32, 0.08, -0.12, 0.38, -0.52], abs=1e-6)


def test_an_episode_scored_at_its_end_alone_moves_credit_towards_it():
    # gamma .5: 1 over 1, .5, .25: 4/7, 2/7, 1/7, mean 1/3; a lost episode has nothing to move
    shift_S = turn_credit(
        torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
        torch.tensor([1, 2, -1, 4, 5, -1]),
        torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.ones(6),
        gamma=0.5,
    )
    assert shift_S.tolist() == pytest.approx([1 / 7 - 1 / 3, 2 / 7 - 1 / 3, 4 / 7 - 1 / 3, 0, 0, 0], abs=1e-6)


def test_a_step_keeps_the_score_that_the_environment_gave_after_it():
    rules = EpisodeRules(False, 3, 1.0, 8, 100, invalid_action_penalty=0.25, penalise_refused=True)
    step = Step([1], [2], [-1.0], [0.5])
    settle(step, StepResult("a room", (), 0.5, False, False, 0.75, valid=False), rules)
    assert (step.score, step.penalty, step.reward, step.admissible) == (0.75, 0.25, 0.25, False)
