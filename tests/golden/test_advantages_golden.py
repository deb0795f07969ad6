"""Advantages by hand: two tasks with ids 7 and 3, members not adjacent."""

import pytest
import torch

from empg_cli.algorithms.advantages import group_relative, group_relative_over_steps, leave_one_out
from empg_cli.algorithms.reinforce import reinforce_plus_plus, reinforce_plus_plus_baseline, whiten
from empg_cli.algorithms.returns import returns_to_go


def close(actual, expected, atol=1e-5):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=atol, rtol=0)


REWARD_N = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
GROUP_N = torch.tensor([7, 3, 7, 3, 7, 3])
# group 7: 1, 0, 0: mean 1/3, population std sqrt(2)/3 = .471405, sample std sqrt(1/3) = .577350
# group 3: 0, 1, 1: mean 2/3, same spreads


def test_group_relative():
    # (1 - 1/3) / .471405 = 1.414214; (0 - 1/3) / .471405 = -.707107
    close(group_relative(REWARD_N, GROUP_N), [1.414214, -1.414214, -0.707107, 0.707107, -0.707107, 0.707107])


def test_group_relative_with_the_sample_std():
    # (2/3) / .577350 = 1.154701
    close(
        group_relative(REWARD_N, GROUP_N, unbiased=True),
        [1.154701, -1.154701, -0.577350, 0.577350, -0.577350, 0.577350],
    )


def test_group_relative_without_std_is_dr_grpo():
    third = 1 / 3
    close(group_relative(REWARD_N, GROUP_N, scale_by_std=False), [2 * third, -2 * third, -third, third, -third, third])


def test_leave_one_out():
    # group 7: 1 - mean(0, 0) = 1; 0 - mean(1, 0) = -.5
    close(leave_one_out(REWARD_N, GROUP_N, scale_by_std=False), [1.0, -1.0, -0.5, 0.5, -0.5, 0.5])


def test_leave_one_out_over_std():
    close(leave_one_out(REWARD_N, GROUP_N)[:3], [2.121320, -2.121320, -1.060660])


def test_statistics_over_steps_count_a_long_trajectory_once_per_step():
    # one task; a success of 1 step, a failure of 3 steps: mean 1/4, population std sqrt(3)/4 = .433013
    close(
        group_relative_over_steps(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.long)),
        [1.732051, -0.577350, -0.577350, -0.577350],
    )
    # per trajectory the same episodes are +1 and -1
    close(group_relative(torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long)), [1.0, -1.0])


@pytest.mark.parametrize("estimator", [group_relative, leave_one_out])
def test_equal_rewards_and_lonely_members_get_exactly_zero(estimator):
    # 0.1 has no exact binary form: centring it directly would leave 1e-9, and 1e-9 / (0 + 1e-6) is not small
    reward_N = torch.tensor([0.1, 0.1, 0.1, 5.0])
    assert torch.equal(estimator(reward_N, torch.tensor([2, 2, 2, -9])), torch.zeros(4))


@pytest.mark.parametrize("estimator", [group_relative, leave_one_out])
def test_a_reward_that_is_no_number_is_refused(estimator):
    with pytest.raises(ValueError, match=r"reward_N\[1\] is nan"):
        estimator(torch.tensor([1.0, float("nan")]), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="equally long"):
        estimator(torch.ones(3), torch.tensor([0, 0]))


def test_empty_batches_and_integer_rewards():
    assert group_relative(torch.empty(0), torch.empty(0, dtype=torch.long)).shape == (0,)
    close(group_relative(torch.tensor([10, 0]), torch.tensor([0, 0])), [1.0, -1.0])


def test_returns_follow_next_not_row_order():
    # trajectory a: rows 3 -> 0 -> 2 with rewards 1, 2, 4; trajectory b: row 1 alone
    next_S = torch.tensor([2, -1, -1, 0])
    # gamma .5: row 2: 4; row 0: 2 + 2 = 4; row 3: 1 + 2 = 3
    close(returns_to_go(torch.tensor([2.0, 7.0, 4.0, 1.0]), next_S, 0.5), [4.0, 7.0, 4.0, 3.0])


def test_a_circle_of_steps_is_refused():
    with pytest.raises(ValueError, match="circle"):
        returns_to_go(torch.ones(3), torch.tensor([1, 2, 0]))


def test_whiten_weights_rows_by_their_tokens():
    # values 1 (2 tokens) and 4 (1 token): mean 2, variance (2 * 1 + 4) / (3 - 1) = 3
    close(whiten(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0])), [-(3**-0.5), 2 * 3**-0.5])


def test_reinforce_plus_plus_whitens_rewards_to_go():
    # rewards 0 -> 1 and a step of 0: returns with gamma .5 are .5, 1, 0; mean .5, sample variance .25
    credit_S = reinforce_plus_plus(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1, -1, -1]), torch.ones(3), gamma=0.5)
    close(credit_S, [0.0, 1.0, -1.0])


def test_reinforce_plus_plus_baseline_subtracts_the_group_first():
    # groups {1, 0} and {5, 5}: centred .5, -.5, 0, 0; sample variance (.25 + .25) / 3
    credit_S = reinforce_plus_plus_baseline(
        torch.tensor([1.0, 0.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 1]), torch.arange(4), torch.ones(4)
    )
    close(credit_S, [1.224745, -1.224745, 0.0, 0.0])


def test_whitening_equal_values_gives_exactly_zero():
    assert torch.equal(whiten(torch.full((5,), 0.1), torch.ones(5)), torch.zeros(5))
    assert torch.equal(whiten(torch.tensor([3.0]), torch.ones(1)), torch.zeros(1))
