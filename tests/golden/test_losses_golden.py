"""Losses, token weights and KL estimators by hand."""

import math

import pytest
import torch

from empg_cli.algorithms.cispo import clipped_importance
from empg_cli.algorithms.filtering import informative, soft_overlong_penalty, uniform_fraction
from empg_cli.algorithms.gspo import sequence_surrogate
from empg_cli.algorithms.importance import truncated_importance
from empg_cli.algorithms.kl import kl_estimate
from empg_cli.algorithms.losses import clipped_surrogate, count_units, token_weights

NEW_ST = torch.log(torch.tensor([[0.6, 0.2], [0.5, 0.9]]))
OLD_ST = torch.log(torch.tensor([[0.4, 0.4], [0.5, 0.5]]))  # ratios 1.5, 0.5 / 1, 1.8
MASK_ST = torch.tensor([[True, True], [True, False]])


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=0)


def test_clipped_surrogate_by_hand():
    # A = +2 on the first step: min(1.5 * 2, 1.28 * 2) = 2.56 and min(.5 * 2, .8 * 2) = 1; A = -1 on the second: -1
    policy = clipped_surrogate(
        NEW_ST, OLD_ST, torch.tensor([2.0, -1.0]), MASK_ST, clip_low=0.2, clip_high=0.28, num_tokens=3
    )
    close(policy.loss, -(2.56 + 1.0 - 1.0) / 3)
    close(policy.clip_fraction_high, 1 / 3)  # ratio 1.5 with positive advantage; .5 is free to rise
    close(policy.clip_fraction_low, 0.0)
    close(policy.ppo_kl, -(math.log(1.5) + math.log(0.5)) / 3)


def test_negative_advantages_are_held_below_and_free_above():
    # A = -1: min(-1.5, -1.28) = -1.5 and min(-.5, -.8) = -.8
    policy = clipped_surrogate(NEW_ST, OLD_ST, -torch.ones(2), MASK_ST, clip_low=0.2, clip_high=0.28, num_tokens=3)
    close(policy.loss, (1.5 + 0.8 + 1.0) / 3)
    close(policy.clip_fraction_low, 1 / 3)
    close(policy.clip_fraction, 1 / 3)


def test_dual_clip_bounds_what_a_bad_action_can_cost():
    # ratio 1.5 above c = 1.2: -1.2 instead of -1.5
    knobs = {"clip_low": 0.2, "clip_high": 0.28, "num_tokens": 3}
    policy = clipped_surrogate(NEW_ST, OLD_ST, -torch.ones(2), MASK_ST, dual_clip=1.2, **knobs)
    close(policy.loss, (1.2 + 0.8 + 1.0) / 3)
    close(policy.dual_clip_fraction, 1 / 3)


def test_dual_clip_leaves_good_actions_alone():
    # A = +1: min(1.5, 1.28) and min(.5, .8) as without it, though both lie below c = 1.6
    knobs = {"clip_low": 0.2, "clip_high": 0.28, "num_tokens": 3}
    policy = clipped_surrogate(NEW_ST, OLD_ST, torch.ones(2), MASK_ST, dual_clip=1.6, **knobs)
    close(policy.loss, -(1.28 + 0.5 + 1.0) / 3)
    close(policy.dual_clip_fraction, 0.0)


def test_a_far_log_ratio_is_cut_at_20_and_has_no_gradient():
    logprob_ST = torch.tensor([[0.0]], requires_grad=True)
    knobs = {"clip_low": 0.2, "clip_high": 0.28, "num_tokens": 1}
    policy = clipped_surrogate(logprob_ST, torch.tensor([[-100.0]]), -torch.ones(1), torch.tensor([[True]]), **knobs)
    torch.testing.assert_close(policy.loss, torch.tensor(math.exp(20)), rtol=1e-5, atol=0)
    policy.loss.backward()
    close(logprob_ST.grad, [[0.0]])


@pytest.mark.parametrize(
    ("length_normalised", "slope"),
    [
        (True, 0.908560 / 3),  # s = exp(mean of three log-ratios): d s / d log pi = s / 3 at each of them
        (False, 0.75),  # s = exp(their sum): d s / d log pi = s
    ],
)
def test_gspo_gradient_is_that_of_its_ratio(length_normalised, slope):
    logprob_ST = NEW_ST.clone().requires_grad_()
    sequence_surrogate(
        logprob_ST,
        OLD_ST,
        torch.ones(2),
        MASK_ST,
        clip_low=0.3,
        clip_high=0.3,
        sequence_S=torch.tensor([5, 5]),
        length_normalised=length_normalised,
        num_tokens=3,
    ).loss.backward()
    close(logprob_ST.grad, [[-slope, -slope], [-slope, 0.0]])


@pytest.mark.parametrize(("sum_of_logs", "has_gradient"), [(19.0, True), (21.0, False), (-21.0, False)])
def test_a_sequence_ratio_that_was_cut_passes_on_no_gradient(sum_of_logs, has_gradient):
    """exp(20) = 5e8 would be the whole step; with a negative advantage nothing else bounds it."""
    logprob_ST = torch.full((1, 2), sum_of_logs / 2, requires_grad=True)
    mask_ST = torch.ones(1, 2, dtype=torch.long)
    sequence_surrogate(
        logprob_ST, torch.zeros(1, 2), torch.tensor([-1.0]), mask_ST, clip_low=0.2, clip_high=0.2,
        length_normalised=False, num_tokens=2,
    ).loss.backward()  # fmt: skip
    assert bool(logprob_ST.grad.abs().max() > 0) is has_gradient


def test_gspo_shares_one_ratio():
    # first step: exp(mean(log 1.5, log .5)) = sqrt(.75) = .866025; second: 1. Weights of `step`: 1/4, 1/4, 1/2
    weight_ST = token_weights(MASK_ST, torch.tensor([0, 0]), "step")
    policy = sequence_surrogate(
        NEW_ST, OLD_ST, torch.tensor([1.0, -1.0]), MASK_ST, clip_low=0.2, clip_high=0.28, weight_ST=weight_ST
    )
    close(policy.loss, -(0.866025 - 1.0) / 2)
    # over the trajectory: exp((log .75 + log 1) / 3) = .908560
    policy = sequence_surrogate(
        NEW_ST,
        OLD_ST,
        torch.ones(2),
        MASK_ST,
        clip_low=0.2,
        clip_high=0.28,
        sequence_S=torch.tensor([5, 5]),
        num_tokens=3,
    )
    close(policy.loss, -0.908560)
    # the sum instead of the mean: .75, held at .8 for a negative advantage
    policy = sequence_surrogate(
        NEW_ST,
        OLD_ST,
        -torch.ones(2),
        MASK_ST,
        clip_low=0.2,
        clip_high=0.28,
        sequence_S=torch.tensor([5, 5]),
        length_normalised=False,
        num_tokens=3,
    )
    close(policy.loss, 0.8)
    close(policy.clip_fraction_low, 1.0)


def test_cispo_weighs_the_log_prob_by_the_clipped_ratio():
    # weights 1.28, .5, 1 (no lower bound), A = 1: 1.28 log .6 + .5 log .2 + log .5
    policy = clipped_importance(NEW_ST, OLD_ST, torch.ones(2), MASK_ST, clip_low=1.0, clip_high=0.28, num_tokens=3)
    close(policy.loss, -(1.28 * math.log(0.6) + 0.5 * math.log(0.2) + math.log(0.5)) / 3)
    close(policy.clip_fraction_high, 1 / 3)


def test_cispo_has_a_lower_bound_where_one_is_asked_for():
    # weights 1.28, .8 instead of .5, and 1
    policy = clipped_importance(NEW_ST, OLD_ST, torch.ones(2), MASK_ST, clip_low=0.2, clip_high=0.28, num_tokens=3)
    close(policy.loss, -(1.28 * math.log(0.6) + 0.8 * math.log(0.2) + math.log(0.5)) / 3)
    close(policy.clip_fraction_low, 1 / 3)


def test_cispo_keeps_the_gradient_that_ppo_cuts():
    logprob_ST = NEW_ST.clone().requires_grad_()
    clipped_importance(
        logprob_ST, OLD_ST, torch.ones(2), MASK_ST, clip_low=1.0, clip_high=0.28, num_tokens=1
    ).loss.backward()
    close(logprob_ST.grad, [[-1.28, -0.5], [-1.0, 0.0]])
    logprob_ST.grad = None
    clipped_surrogate(
        logprob_ST, OLD_ST, torch.ones(2), MASK_ST, clip_low=0.2, clip_high=0.28, num_tokens=1
    ).loss.backward()
    close(logprob_ST.grad, [[0.0, -0.5], [-1.0, 0.0]])


MASK3_ST = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()  # steps of 3, 1, 2 tokens
TRAJECTORY_S = torch.tensor([4, 4, 2])


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("token", [1 / 6, 1 / 6, 1 / 6]),
        ("step", [1 / 9, 1 / 3, 1 / 6]),  # 3 steps, each shared by its tokens
        ("trajectory", [1 / 8, 1 / 8, 1 / 4]),  # 2 trajectories of 4 and 2 tokens
        ("constant", [1 / 20, 1 / 20, 1 / 20]),  # 2 trajectories x 10
    ],
)
def test_token_weights(weighting, expected):
    weight_ST = token_weights(MASK3_ST, TRAJECTORY_S, weighting, constant_tokens=10)
    close(weight_ST, [[w * m for m in row] for w, row in zip(expected, MASK3_ST.float().tolist(), strict=True)])


@pytest.mark.parametrize(("weighting", "units"), [("token", 6), ("step", 3), ("trajectory", 2), ("constant", 2)])
def test_ranks_share_one_denominator(weighting, units):
    assert count_units(MASK3_ST, TRAJECTORY_S, weighting) == units
    # rank 0 holds trajectory 4, rank 1 trajectory 2
    whole = token_weights(MASK3_ST, TRAJECTORY_S, weighting, constant_tokens=10)
    parts = [
        token_weights(MASK3_ST[rows], TRAJECTORY_S[rows], weighting, constant_tokens=10, num_units=units)
        for rows in (slice(0, 2), slice(2, 3))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_unknown_and_incomplete_weightings_are_refused():
    with pytest.raises(ValueError, match="constant_tokens"):
        token_weights(MASK3_ST, TRAJECTORY_S, "constant")
    with pytest.raises(ValueError, match="unknown weighting 'tokens'"):
        token_weights(MASK3_ST, TRAJECTORY_S, "tokens")
    with pytest.raises(ValueError, match="num_tokens"):
        clipped_surrogate(NEW_ST, OLD_ST, torch.ones(2), MASK_ST, clip_low=0.2, clip_high=0.2)


def test_kl_estimators_by_hand():
    # pi = .5, ref = .25: log pi - log ref = log 2 = .693147; k2 = .240227; k3 = .5 + .693147 - 1 = .193147
    logprob, ref = torch.log(torch.tensor([0.5])), torch.log(torch.tensor([0.25]))
    for kind, expected in (("k1", 0.693147), ("k2", 0.240227), ("k3", 0.193147)):
        close(kl_estimate(logprob, ref, kind), [expected])
    with pytest.raises(ValueError, match="unknown KL estimator 'k4'"):
        kl_estimate(logprob, ref, "k4")


def test_k1_and_k3_estimate_the_kl_divergence_without_bias():
    # over all 3 actions, weighted by the policy: sum p log(p / q) = .6 log(.6/.2) + .3 log(.3/.3) + .1 log(.1/.5)
    policy, reference = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    kl = 0.6 * math.log(3) + 0.1 * math.log(0.2)
    for kind in ("k1", "k3"):
        close((policy * kl_estimate(policy.log(), reference.log(), kind)).sum(), kl)


def test_a_clamped_kl_is_bounded_and_its_gradient_finite():
    logprob = torch.tensor([-200.0, -1.0], requires_grad=True)
    estimate = kl_estimate(logprob, torch.tensor([0.0, -2.0]), "k3", clamp=10.0)
    close(estimate[0], 10.0)
    estimate.sum().backward()
    # beyond the clamp nothing; inside d/dlogp k3 = 1 - exp(ref - logp) = 1 - exp(-1)
    close(logprob.grad, [0.0, 1 - math.exp(-1)])


def test_overlong_penalty_grows_inside_the_buffer():
    # limit 100, buffer 20: free to 80, then linear; 85 -> 5/20, 100 and more -> all
    close(
        soft_overlong_penalty(torch.tensor([10, 80, 85, 100, 900]), limit=100, buffer=20, penalty=2.0),
        [0.0, 0.0, -0.5, -2.0, -2.0],
    )
    with pytest.raises(ValueError, match=r"1\.\.limit \(100\), got 101"):
        soft_overlong_penalty(torch.tensor([1]), limit=100, buffer=101)


def test_groups_with_equal_rewards_are_not_informative():
    reward_N = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.3, 0.1 + 0.2])
    group_N = torch.tensor([9, 9, -2, -2, 5, 5])
    assert informative(reward_N, group_N).tolist() == [True, True, False, False, False, False]
    assert uniform_fraction(reward_N, group_N) == pytest.approx(2 / 3)
    # 1.2e-7, the last bit of a 1 in single precision, is rounding; a thousandth is not
    assert informative(torch.tensor([1.0, 1 + 1.2e-7, 1.0, 1.001]), torch.tensor([0, 0, 1, 1])).tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert torch.tensor(1 + 1.2e-7) != 1.0
    assert uniform_fraction(torch.empty(0), torch.empty(0, dtype=torch.long)) == 0.0


def test_truncated_importance_is_one_on_policy_and_capped_off_it():
    rollout_ST = torch.log(torch.tensor([[0.4, 0.1], [0.5, 0.5]]))  # old / rollout: 1, 4 / 1, masked
    weight_ST = truncated_importance(OLD_ST, rollout_ST, MASK_ST, cap=2.0)
    assert torch.equal(weight_ST, torch.tensor([[1.0, 2.0], [1.0, 0.0]]))
    assert torch.equal(truncated_importance(OLD_ST, OLD_ST, MASK_ST), MASK_ST.float())
