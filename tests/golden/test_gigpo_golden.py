"""GiGPO by hand, and against a slow transcription of Eq. 5 to 8 of arXiv 2505.10978."""

import random
from difflib import SequenceMatcher
from statistics import mean, pstdev

import pytest
import torch

from empg_cli.algorithms.gigpo import anchor_groups, combine, step_relative

# A shop, one task, three attempts, as in the paper's introduction to step-level groups: all see the results page.
#   a: results -> (buys item 1, wrong)                     reward 0
#   b: results -> page 2 -> results -> (buys item 2)       reward 1 at the end
#   c: results -> (buys item 2, right)                     reward 1
ANCHORS = ["results", "results", "page 2", "results", "results"]
NEXT_S = torch.tensor([-1, 2, 3, -1, -1])
REWARD_S = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
GROUP_S = torch.zeros(5, dtype=torch.long)


def test_steps_with_the_same_observation_are_compared():
    anchor_S = anchor_groups(ANCHORS, GROUP_S)
    assert anchor_S.tolist() == [0, 0, 1, 0, 0]
    # returns with gamma .9: a 0; b .81, .9, 1; c 1. The results page has 0, .81, 1, 1: mean .7025
    step_S = step_relative(REWARD_S, NEXT_S, anchor_S, gamma=0.9, scale_by_std=False)
    expected = torch.tensor([-0.7025, 0.1075, 0.0, 0.2975, 0.2975])
    torch.testing.assert_close(step_S, expected, atol=1e-6, rtol=0)
    # buying the right item at once > turning the page first > buying the wrong one
    assert step_S[4] > step_S[1] > step_S[0]


def test_the_advantage_is_the_sum_of_both_levels():
    torch.testing.assert_close(
        combine(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.25]), omega=2.0), torch.tensor([2.0, -0.5])
    )


def test_the_same_text_in_two_tasks_is_two_anchors():
    assert anchor_groups(["room", "room"], torch.tensor([4, 9])).tolist() == [0, 1]


def test_similar_texts_join_the_first_anchor_they_resemble():
    texts = ["you see a mug 1 here", "you see a mug 2 here", "an entirely different page"]
    assert SequenceMatcher(None, texts[0], texts[1]).ratio() == pytest.approx(0.95)
    assert anchor_groups(texts, torch.zeros(3), similarity=0.9).tolist() == [0, 0, 1]
    assert anchor_groups(texts, torch.zeros(3), similarity=0.96).tolist() == [0, 1, 2]


def test_a_batch_without_observations_is_refused():
    with pytest.raises(ValueError, match="0 observations for 5 steps"):
        anchor_groups([], GROUP_S)


@pytest.mark.parametrize("scale_by_std", [True, False])
def test_step_advantage_equals_the_equations_written_as_loops(scale_by_std):
    rng = random.Random(0)
    for _ in range(100):
        tasks = [
            [[(rng.choice("abc"), rng.choice([0.0, 1.0, -0.1])) for _ in range(rng.randint(1, 5))] for _ in range(4)]
            for _ in range(rng.randint(1, 3))
        ]
        gamma = rng.choice([1.0, 0.95, 0.5])
        returns, members, rows = [], {}, []
        next_step, group = [], []
        for task, trajectories in enumerate(tasks):
            for steps in trajectories:
                first = len(returns)
                for t, (state, reward) in enumerate(steps):
                    returns.append(sum(gamma ** (k - t) * steps[k][1] for k in range(t, len(steps))))
                    members.setdefault((task, state), []).append(first + t)
                    rows.append((state, reward))
                    group.append(task)
                next_step += [*range(first + 1, first + len(steps)), -1]
        expected = [0.0] * len(returns)
        for steps_here in members.values():
            values = [returns[s] for s in steps_here]
            spread = pstdev(values) + 1e-6 if scale_by_std else 1.0
            for s in steps_here:
                expected[s] = (returns[s] - mean(values)) / spread
        actual = step_relative(
            torch.tensor([reward for _, reward in rows], dtype=torch.float64),
            torch.tensor(next_step),
            anchor_groups([state for state, _ in rows], torch.tensor(group)),
            gamma=gamma,
            scale_by_std=scale_by_std,
        )
        # equal returns summed in another order differ by 1e-17, which 1e-6 in the denominator turns into 1e-11
        torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
