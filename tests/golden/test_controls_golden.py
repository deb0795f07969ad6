"""Controls of EMPG by hand, on the vector of the paper's formulas (test_empg_golden.py), and what all of them keep."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from empg_cli.algorithms.assemble import compute_credit, credit_parts
from empg_cli.algorithms.controls import batch_seed, controlled_modulation, means_of, ordered_credit, permutation
from empg_cli.algorithms.empg import Modulation, modulate, modulation, normalise_entropy
from empg_cli.config.algo import Control, Order, Scaled
from empg_cli.config.problems import ConfigError
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
    # 1 - x: 1 .5 0 .75 .75; exp(-x): .367879 .606531 1 .472367 .472367, mean .583829
    parts = controlled("inverted")
    close(parts.weight_S, [0.630115, 1.038885, 1.712831, 0.809085, 0.809085])
    close(parts.clarity_S, [0.606531, 1, 0, 0.472367, 0])


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
    # mean A .2; (A - .2) g: .8 * 1.415624, .8 * .858620, .8 * .520779, -1.2 * 1.102489 twice
    # zeta f: .030327 .018394 0 .038940 0, mean .017532
    found = ordered_credit(ADVANTAGE, PARTS, zeta=0.05, order="center_then_scale", scaled="all", center=True)
    close(found, [1.145294, 0.687758, 0.399091, -1.301579, -1.340519])


def test_the_means_part_alone():
    # A + .2 (g - 1): 1.083125 .971724 .904156 -.979502 -.979502, then the centred bonus
    found = ordered_credit(ADVANTAGE, PARTS, zeta=0.05, order="bias_only", scaled="all", center=True)
    close(found, [1.095920, 0.972586, 0.886624, -0.958094, -0.997034])


def test_the_two_orders_are_the_parts_of_the_papers():
    """A g = (A - mean A) g + mean(A) (g - 1) + mean A."""
    parts = {
        order: ordered_credit(ADVANTAGE, PARTS, zeta=0, order=order, scaled="all", center=order != "scale_then_center")
        for order in get_args(Order)
    }
    assert torch.allclose(
        parts["scale_then_center"], parts["center_then_scale"] + parts["bias_only"] - ADVANTAGE + 0.2, atol=1e-6
    )


def test_scaled_on_one_sign_alone():
    for scaled, wanted in (
        ("positive", [1.415624, 0.858620, 0.520779, -1, -1]),
        ("negative", [1, 1, 1, -1.102489, -1.102489]),
    ):
        found = ordered_credit(ADVANTAGE, PARTS, zeta=0, order="scale_then_center", scaled=scaled, center=False)
        close(found, wanted)


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
        (["algo.credit.order=center_then_scale"], torch.tensor([1.145294, 0.687758, 0.399091, -1.301579, -1.340519])),
        (["algo.credit.order=bias_only"], torch.tensor([1.095920, 0.972586, 0.886624, -0.958094, -0.997034])),
    ):
        assert torch.allclose(credit(*words), wanted, atol=2e-5), words
    positive = ["algo.credit.scaled=positive", "algo.credit.zeta=0", "algo.credit.center=false"]
    close(credit(*positive), [1.415624, 0.858620, 0.520779, -1, -1])


def test_the_controls_are_asked_for_by_name():
    seed = batch_seed(torch.full((5,), 2), TRAJECTORY)
    for control in PLACEBOS:
        assert torch.allclose(weights(f"algo.credit.control={control}"), controlled(control, seed=seed).weight_S), (
            control
        )
    assert torch.allclose(weights("algo.credit.control=inverted"), controlled("inverted").weight_S)


def test_the_first_token_in_place_of_the_mean():
    # first tokens .1 .5 .9 .1 .9: x 0 .5 1 0 1, exp(-x): 1 .606531 .367879 1 .367879, mean .668458
    close(weights("algo.credit.control=first_token"), [1.495980, 0.907358, 0.550340, 1.495980, 0.550340])


def test_where_nothing_was_refused_validity_says_nothing():
    close(weights("algo.credit.control=valid_only", valid=None), [1] * 5)


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
    if control.startswith("permuted"):
        own = modulation(normalise_entropy(torch.tensor(entropies)), following)
        assert torch.equal(parts.weight_S.sort().values, own.weight_S.sort().values)
        assert torch.allclose(means_of(parts.weight_S, trajectory), means_of(own.weight_S, trajectory), atol=1e-5) or (
            control == "permuted"
        )


@given(st.sampled_from(get_args(Order)), st.sampled_from(get_args(Scaled)))
def test_without_sharpness_and_bonus_the_orders_differ_in_the_mean_alone(order: Order, scaled: Scaled):
    flat = modulation(normalise_entropy(ENTROPY), NEXT, k=0)
    found = ordered_credit(ADVANTAGE, flat, zeta=0, order=order, scaled=scaled, center=True)
    wanted = ADVANTAGE if order == "bias_only" else ADVANTAGE - 0.2
    assert torch.allclose(found, wanted)


def test_seeds_go_by_the_lengths_of_the_responses():
    tokens = torch.tensor([2, 3, 4, 5, 6])
    assert batch_seed(tokens, TRAJECTORY) == batch_seed(tokens.clone(), TRAJECTORY.clone())
    assert len({batch_seed(tokens + one, TRAJECTORY) for one in range(20)}) == 20


def test_an_order_that_needs_the_mean_is_refused_without_it():
    with pytest.raises(ConfigError, match="center must be true"):
        tiny_config("algo=empg", "algo.credit.order=bias_only", "algo.credit.center=false")
