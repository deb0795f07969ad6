"""Controls of EMPG by hand, on the vector of the paper's formulas (test_empg_golden.py), and what all of them keep."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from empg_cli.algorithms.assemble import compute_credit, credit_parts
from empg_cli.algorithms.controls import batch_seed, controlled_modulation, means_of, ordered_credit, permutation
from empg_cli.algorithms.empg import Modulation, apply_modulation, modulate, modulation, normalise_entropy
from empg_cli.config.algo import Control, Order, Scaled
from empg_cli.config.location import conf_dir
from empg_cli.config.problems import ConfigError
from empg_cli.runs.study import differences
from empg_cli.types import Batch
from tests.support.tiny import tiny_config

ENTROPY = torch.tensor([0.2, 0.6, 1.0, 0.4, 0.4])
ADVANTAGE = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
NEXT = torch.tensor([1, 2, -1, 4, -1])
TRAJECTORY = torch.tensor([0, 0, 0, 1, 1])
VALID = torch.tensor([True, False, True, False, True])
# g: 1.415624 .858620 .520779 1.102489 1.102489; f of each step itself: 1 .606531 .367879 .778801 .778801
PARTS = modulation(normalise_entropy(ENTROPY), NEXT)
PLACEBOS: tuple[Control, ...] = ("permuted", "permuted_within", "trajectory_mean", "valid_only")


def controlled(control: Control, *, seed: int = 0) -> Modulation:
    return controlled_modulation(
        normalise_entropy(ENTROPY), NEXT, control, trajectory_S=TRAJECTORY, is_valid_S=VALID, seed=seed
    )


def ordered(
    order: Order, advantage: Tensor = ADVANTAGE, *, scaled: Scaled = "all", zeta: float = 0.0, center: bool = True
) -> Tensor:
    return ordered_credit(advantage, PARTS, zeta=zeta, order=order, scaled=scaled, center=center).credit_S


def close(found: Tensor, wanted: list[float]) -> None:
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)


# --- by hand ---------------------------------------------------------------------------------------------


def test_without_a_control_it_is_the_paper():
    for found, wanted in zip(
        (controlled("none").weight_S, controlled("none").clarity_S), (PARTS.weight_S, PARTS.clarity_S), strict=True
    ):
        assert torch.equal(found, wanted)


def test_the_mean_of_a_trajectory():
    # g: (1.415624 + .858620 + .520779) / 3 = .931674 and 1.102489; f: (1 + .606531 + .367879) / 3 = .658137 and .778801
    parts = controlled("trajectory_mean")
    close(parts.weight_S, [0.931674, 0.931674, 0.931674, 1.102489, 1.102489])
    close(parts.clarity_S, [0.658137, 0.658137, 0, 0.778801, 0])


def test_validity_in_place_of_entropy():
    # valid are steps 0, 2, 4: g (1.415624 + .520779 + 1.102489) / 3 = 1.012964, f (1 + .367879 + .778801) / 3 = .715560
    # refused 1, 3: g (.858620 + 1.102489) / 2 = .980554, f (.606531 + .778801) / 2 = .692666
    parts = controlled("valid_only")
    close(parts.weight_S, [1.012964, 0.980554, 1.012964, 0.980554, 1.012964])
    close(parts.clarity_S, [0.692666, 0.715560, 0, 0.715560, 0])


def test_inverted_gives_unsure_steps_more():
    # least to most sure: 2, 1, 3 and 4 (equal), 0; so 2 gets the 1.415624 of 0, 0 the .520779 of 2, 1 the 1.102489 of
    # 3 or 4, and these two 1.102489 and the .858620 of 1, in either order
    seen = set()
    for seed in range(20):
        parts = controlled("inverted", seed=seed)
        close(parts.weight_S[:3], [0.520779, 1.102489, 1.415624])
        close(parts.weight_S[3:].sort().values, [0.858620, 1.102489])
        seen.add(round(float(parts.weight_S[3]), 6))
        # f of the steps themselves: .367879 .778801 1, then .606531 and .778801
        close(parts.clarity_S[[0, 1, 2, 4]], [0.778801, 1, 0, 0])
        assert float(parts.clarity_S[3]) == pytest.approx(0.606531 if parts.weight_S[4] < 1 else 0.778801, abs=1e-5)
    assert len(seen) == 2


def test_inverted_keeps_the_spread_of_the_weights_beside_an_outlier():
    entropy = torch.cat([torch.linspace(0.1, 0.5, 40), torch.tensor([10.0])])
    nowhere = torch.full((41,), -1)
    own = modulation(normalise_entropy(entropy), nowhere).weight_S
    found = controlled_modulation(
        normalise_entropy(entropy), nowhere, "inverted", trajectory_S=nowhere, is_valid_S=nowhere > 0, seed=0
    ).weight_S
    assert torch.equal(found, own.flip(0))  # entropies rise, so the mirror image is the reverse


def test_a_permutation_takes_both_from_the_same_step():
    parts, own = controlled("permuted", seed=3), controlled("none")
    order = permutation(torch.zeros(5, dtype=torch.long), 3)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    assert order.tolist() != [0, 1, 2, 3, 4]
    assert torch.equal(parts.weight_S, own.weight_S[order])
    clarity = torch.exp(-own.entropy01_S)[order]
    assert torch.equal(parts.clarity_S, torch.where(NEXT >= 0, clarity[NEXT.clamp_min(0)], 0.0))


def test_a_permutation_within_stays_in_the_trajectory():
    seen = {tuple(permutation(TRAJECTORY, seed).tolist()) for seed in range(200)}
    assert {order[:3] for order in seen} == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    assert {order[3:] for order in seen} == {(3, 4), (4, 3)}
    for seed in range(20):
        weight = controlled("permuted_within", seed=seed).weight_S
        close(weight[:3].sort().values, [0.520779, 0.858620, 1.415624])


def test_all_permutations_are_drawn_about_equally():
    count: dict[tuple[int, ...], int] = {}
    for seed in range(2400):
        order = tuple(permutation(torch.zeros(4, dtype=torch.long), seed).tolist())
        count[order] = count.get(order, 0) + 1
    # 24 permutations, 100 expected of each; chi-square with 23 degrees of freedom: 49.7 is its 0.999 quantile
    assert len(count) == 24
    assert sum((n - 100) ** 2 / 100 for n in count.values()) < 49.7


def test_groups_are_permuted_wherever_their_rows_stand():
    for seed in range(50):
        order = permutation(torch.tensor([7, 2, 7, 2, 7]), seed)
        assert sorted(order[[0, 2, 4]].tolist()) == [0, 2, 4]
        assert sorted(order[[1, 3]].tolist()) == [1, 3]


def test_centred_before_scaling():
    # mean A .2; (A - .2) g: .8 * 1.415624, .8 * .858620, .8 * .520779, -1.2 * 1.102489 twice, less their mean
    # Cov(A, g) = -.081991
    # zeta f: .030327 .018394 0 .038940 0, mean .017532
    found = ordered("center_then_scale", zeta=0.05)
    close(found, [1.227285, 0.769749, 0.481082, -1.219588, -1.258528])


def test_the_means_part_alone():
    # A - .2 + .2 (g - 1): .883125 .771724 .704156 -1.179502 -1.179502, then the centred bonus
    found = ordered("bias_only", zeta=0.05)
    close(found, [0.895920, 0.772586, 0.686624, -1.158094, -1.197034])


@given(
    st.lists(st.tuples(st.floats(-3, 3, width=32), st.floats(0, 5, width=32)), min_size=1, max_size=30),
    st.sampled_from(get_args(Scaled)),
)
def test_what_the_orders_add_to_centring_alone_adds_up_to_the_papers(steps: list[tuple[float, float]], scaled: Scaled):
    """A g - mean(A g) = [(A - mean A) g - Cov(A, g)] + mean(A) (g - 1), and every order has mean 0."""
    advantage, entropy = torch.tensor(steps, dtype=torch.float64).T
    parts = modulation(normalise_entropy(entropy), torch.arange(1, len(steps) + 1) % len(steps))
    credit = {
        order: ordered_credit(advantage, parts, zeta=0.05, order=order, scaled=scaled, center=True).credit_S
        for order in get_args(Order)
    }
    unscaled = replace(parts, weight_S=torch.ones_like(advantage))
    alone = apply_modulation(advantage, unscaled, zeta=0.05)
    together = credit["center_then_scale"] + credit["bias_only"] - alone
    assert torch.allclose(credit["scale_then_center"], together, atol=1e-12)
    assert all(abs(float(values.mean())) < 1e-12 for values in credit.values())
    if scaled == "all":
        weight = parts.weight_S
        covariance = (advantage * weight).mean() - advantage.mean()
        scaled_deviation = (advantage - advantage.mean()) * weight - covariance
        bonus = 0.05 * (parts.clarity_S - parts.clarity_S.mean())
        assert torch.allclose(credit["center_then_scale"], scaled_deviation + bonus, atol=1e-12)
        assert torch.allclose(credit["bias_only"], alone + advantage.mean() * (weight - 1), atol=1e-12)


def test_the_papers_order_is_the_paper_bit_for_bit():
    for center in (True, False):
        found = ordered("scale_then_center", zeta=0.05, center=center)
        assert torch.equal(found, modulate(ADVANTAGE, ENTROPY, NEXT, center=center))


def test_a_shift_is_a_dose_of_the_means_part():
    # A - .4: .6 .6 .6 -1.4 -1.4; times g .849374 .515172 .312467 -1.543485 -1.543485, mean -.281991
    # bias_only: (.2 - .4) g + (A - .2): .516875 .628276 .695844 -1.420498 -1.420498, mean -.2
    for order, wanted in (
        ("scale_then_center", [1.131366, 0.797164, 0.594459, -1.261493, -1.261493]),
        ("bias_only", [0.716875, 0.828276, 0.895844, -1.220498, -1.220498]),
    ):
        found = ordered_credit(ADVANTAGE, PARTS, zeta=0.0, order=order, scaled="all", shift=-0.4).credit_S
        close(found, wanted)
        close(found - ordered(order), (-0.4 * (PARTS.weight_S - 1)).tolist())


def test_the_sign_that_is_scaled_is_that_of_the_advantage_before_a_shift():
    """+2 makes every advantage positive; g is 1.519441 .921588 .558971 on the three that were."""
    found = ordered_credit(ADVANTAGE, PARTS, zeta=0.0, order="scale_then_center", scaled="positive", shift=2.0)
    close(found.parts.weight_S, [1.519441, 0.921588, 0.558971, 1, 1])


@pytest.mark.parametrize("words", [["algo.credit.center=false"], ["algo.credit.order=center_then_scale"]])
def test_a_shift_that_would_be_no_control_is_refused(words: list[str]):
    with pytest.raises(ConfigError, match=r"algo\.credit\.shift: must be 0 unless"):
        tiny_config("algo=empg", "algo.credit.shift=0.1", *words)


def test_scaled_on_one_sign_alone():
    # positive: 1.415624 .858620 .520779 over their mean .931674; negative: both 1.102489, so each is its mean
    for scaled, wanted in (
        ("positive", [1.519441, 0.921588, 0.558971, -1, -1]),
        ("negative", [1, 1, 1, -1, -1]),
    ):
        found = ordered("scale_then_center", scaled=scaled, center=False)
        close(found, wanted)


def test_scaling_one_sign_keeps_the_balance_of_the_signs():
    advantage = torch.tensor([-1.0, 1, -1, 1, -1])
    for scaled in ("positive", "negative"):
        found = ordered("scale_then_center", advantage, scaled=scaled, center=False)
        assert float(found[advantage > 0].mean()) == pytest.approx(1)
        assert float(found[advantage < 0].mean()) == pytest.approx(-1)


def test_where_no_advantage_has_the_sign_nothing_is_scaled():
    found = ordered("scale_then_center", ADVANTAGE.abs(), scaled="negative", center=False)
    assert torch.equal(found, ADVANTAGE.abs())


# --- through the settings --------------------------------------------------------------------------------


def batch(*, valid: Tensor | None = VALID) -> Batch:
    """The vector as a batch: two tokens a step, entropies H - .1 and H + .1, but the first tokens of steps 3 and 4."""
    entropy_ST = torch.stack([ENTROPY - 0.1, ENTROPY + 0.1], dim=1)
    entropy_ST[3:] = torch.tensor([[0.1, 0.7], [0.9, -0.1]])
    return Batch(
        row_ids=[torch.arange(4)] * 5,
        step_row_S=torch.arange(5),
        step_start_S=torch.full((5,), 2),
        mask_ST=torch.ones(5, 2, dtype=torch.bool),
        token_ST=torch.ones(5, 2, dtype=torch.long),
        old_logprob_ST=torch.zeros(5, 2),
        entropy_ST=entropy_ST,
        trajectory_S=TRAJECTORY,
        next_S=NEXT,
        group_N=torch.tensor([0, 0]),
        reward_N=torch.tensor([1.0, 0.0]),
        reward_S=torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]),
        is_valid_S=valid,
    )


def credit(*words: str) -> Tensor:
    return compute_credit(tiny_config("algo=empg", *words).algo, batch())[0]


def weights(*words: str, valid: Tensor | None = VALID) -> Tensor:
    found = credit_parts(tiny_config("algo=empg", *words).algo, batch(valid=valid))[0].weight_S
    assert found is not None
    return found


def test_the_settings_are_the_formulas():
    for words, wanted in (
        ([], modulate(ADVANTAGE, ENTROPY, NEXT)),
        (["algo.credit.order=center_then_scale"], torch.tensor([1.227285, 0.769749, 0.481082, -1.219588, -1.258528])),
        (["algo.credit.order=bias_only"], torch.tensor([0.895920, 0.772586, 0.686624, -1.158094, -1.197034])),
    ):
        assert torch.allclose(credit(*words), wanted, atol=2e-5), words
    shifted = ["algo.credit.shift=-0.4", "algo.credit.zeta=0"]
    close(credit(*shifted), [1.131366, 0.797164, 0.594459, -1.261493, -1.261493])
    positive = ["algo.credit.scaled=positive", "algo.credit.zeta=0", "algo.credit.center=false"]
    close(credit(*positive), [1.519441, 0.921588, 0.558971, -1, -1])


def test_the_controls_are_asked_for_by_name():
    seed = batch_seed(torch.full((5,), 2), TRAJECTORY)
    for control in PLACEBOS:
        assert torch.allclose(weights(f"algo.credit.control={control}"), controlled(control, seed=seed).weight_S), (
            control
        )
    assert torch.allclose(weights("algo.credit.control=inverted"), controlled("inverted", seed=seed).weight_S)


def test_the_first_token_in_place_of_the_mean():
    # first tokens .1 .5 .9 .1 .9: x 0 .5 1 0 1, exp(-x): 1 .606531 .367879 1 .367879, mean .668458
    close(weights("algo.credit.control=first_token"), [1.495980, 0.907358, 0.550340, 1.495980, 0.550340])


def test_where_nothing_was_refused_validity_says_nothing():
    close(weights("algo.credit.control=valid_only", valid=None), [1] * 5)


PAIRED = {
    "empg-uncentred": 2,
    "bonus": 2,
    "bonus-uncentred": 3,
    "inverted-bias-only": 2,
    "first-token-bias-only": 2,
    "step-statistics-shift-down": 2,
}
"""Arms that combine settings, and how many."""


def test_every_other_arm_of_the_ablation_differs_from_the_scaling_in_one_setting():
    ablation = yaml.safe_load((conf_dir() / "ablation" / "controls.yaml").read_text())
    scaling = tiny_config(*ablation["variants"][ablation["base"]]).algo.model_dump()
    assert (scaling["credit"]["center"], scaling["credit"]["zeta"]) == (True, 0)
    for name, words in ablation["variants"].items():
        if name != ablation["base"] and not name.startswith("grpo"):
            assert len(list(differences(scaling, tiny_config(*words).algo.model_dump()))) == PAIRED.get(name, 1), name


def test_what_is_shown_and_logged_is_what_was_used():
    """For positive, g is 1.519441 .921588 .558971 and 1 twice; before centring the credit has mean 1/5 = .2."""
    words = ("algo=empg", "algo.credit.zeta=0")
    parts, metrics = credit_parts(tiny_config(*words, "algo.credit.scaled=positive").algo, batch())
    assert parts.weight_S is not None
    close(parts.weight_S, [1.519441, 0.921588, 0.558971, 1, 1])
    assert metrics["empg/weight/min"] == pytest.approx(0.558971, abs=1e-5)
    assert metrics["empg/center_offset"] == pytest.approx(0.2, abs=1e-5)
    # mean A g is .118009, that of mean(A) (g - 1) + A is mean A = .2: another formula, another offset
    for order, offset in (("scale_then_center", 0.118009), ("center_then_scale", 0.118009), ("bias_only", 0.2)):
        _, metrics = credit_parts(tiny_config(*words, f"algo.credit.order={order}").algo, batch())
        assert metrics["empg/center_offset"] == pytest.approx(offset, abs=2e-5), order


# --- what they keep --------------------------------------------------------------------------------------

BATCHES = st.integers(1, 30).flatmap(
    lambda steps: st.tuples(
        st.lists(st.floats(0, 5, width=32), min_size=steps, max_size=steps),
        st.lists(st.integers(0, 3), min_size=steps, max_size=steps).map(sorted),
        st.lists(st.booleans(), min_size=steps, max_size=steps),
        st.integers(0, 2**32 - 1),
    )
)


@settings(deadline=None)
@given(BATCHES, st.sampled_from(get_args(Control)))
def test_weights_have_mean_one_and_bonuses_their_bounds(drawn: Any, control: Control):
    entropies, trajectories, valid, seed = drawn
    trajectory = torch.tensor(trajectories)
    following = torch.arange(1, len(trajectories) + 1)
    following[torch.cat([trajectory[1:] != trajectory[:-1], torch.tensor([True])])] = -1
    parts = controlled_modulation(
        normalise_entropy(torch.tensor(entropies)),
        following,
        control,
        trajectory_S=trajectory,
        is_valid_S=torch.tensor(valid),
        seed=seed,
    )
    assert float(parts.weight_S.mean()) == pytest.approx(1, abs=1e-5)
    has_next = following >= 0
    assert (parts.clarity_S[~has_next] == 0).all()
    assert ((parts.clarity_S[has_next] > math.exp(-1) - 1e-6) & (parts.clarity_S[has_next] < 1 + 1e-6)).all()
    own = modulation(normalise_entropy(torch.tensor(entropies)), following)
    if control in ("permuted", "permuted_within", "inverted"):
        assert torch.equal(parts.weight_S.sort().values, own.weight_S.sort().values)
    if control == "permuted_within":
        assert torch.allclose(means_of(parts.weight_S, trajectory), means_of(own.weight_S, trajectory), atol=1e-5)
    if control == "inverted":
        is_less_SS = own.weight_S[:, None] < own.weight_S
        assert (parts.weight_S[:, None] >= parts.weight_S)[is_less_SS].all()


@given(st.sampled_from(get_args(Order)), st.sampled_from(get_args(Scaled)))
def test_without_sharpness_and_bonus_every_order_centres_alone(order: Order, scaled: Scaled):
    flat = modulation(normalise_entropy(ENTROPY), NEXT, k=0)
    found = ordered_credit(ADVANTAGE, flat, zeta=0, order=order, scaled=scaled, center=True).credit_S
    assert torch.allclose(found, ADVANTAGE - 0.2)


def test_seeds_go_by_the_lengths_of_the_responses():
    tokens = torch.tensor([2, 3, 4, 5, 6])
    assert batch_seed(tokens, TRAJECTORY) == batch_seed(tokens.clone(), TRAJECTORY.clone())
    assert len({batch_seed(tokens + one, TRAJECTORY) for one in range(20)}) == 20


def test_an_order_that_needs_the_mean_is_refused_without_it():
    with pytest.raises(ConfigError, match="center must be true"):
        tiny_config("algo=empg", "algo.credit.order=bias_only", "algo.credit.center=false")
