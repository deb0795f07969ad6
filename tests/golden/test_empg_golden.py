"""EMPG worked by hand: two trajectories of three and two steps, A = +1 and -1."""

import pytest
import torch

from empg_cli.algorithms.empg import future_clarity, gradient_scale, modulate, normalise_entropy, step_entropy

ENTROPY_S = torch.tensor([0.2, 0.6, 1.0, 0.4, 0.4])  # min 0.2, max 1.0 -> normalised 0, .5, 1, .25, .25
ADVANTAGE_S = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
NEXT_S = torch.tensor([1, 2, -1, 4, -1])


def close(actual: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), atol=2e-6, rtol=0)


def test_entropy_is_normalised_to_the_unit_interval():
    close(normalise_entropy(ENTROPY_S), [0.0, 0.5, 1.0, 0.25, 0.25])


def test_gradient_scale_is_exp_over_its_mean():
    # exp(-H): 1, .606531, .367879, .778801, .778801; mean .706402
    close(gradient_scale(normalise_entropy(ENTROPY_S), k=1.0), [1.415624, 0.858619, 0.520779, 1.102489, 1.102489])


def test_future_clarity_looks_at_the_next_step_and_the_last_step_has_none():
    # exp(-H) of rows 1, 2 and 4
    close(future_clarity(normalise_entropy(ENTROPY_S), NEXT_S, 1.0), [0.606531, 0.367879, 0.0, 0.778801, 0.0])


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        # A g + 0.05 f = 1.445950, .877013, .520779, -1.063549, -1.102489; mean 0.135541
        ({}, [1.310409, 0.741472, 0.385238, -1.199090, -1.238030]),
        ({"zeta": 0.0}, [1.297615, 0.740610, 0.402770, -1.220498, -1.220498]),
        ({"k": 0.0}, [0.812794, 0.800862, 0.782468, -1.178592, -1.217532]),
    ],
    ids=["full", "scaling only", "bonus only"],
)
def test_credit_by_hand(knobs, expected):
    credit_S = modulate(ADVANTAGE_S, ENTROPY_S, NEXT_S, **({"k": 1.0, "k_future": 1.0, "zeta": 0.05} | knobs))
    close(credit_S, expected)


def test_without_centring_the_mean_stays():
    credit_S = modulate(ADVANTAGE_S, ENTROPY_S, NEXT_S, center=False)
    close(credit_S, [1.445950, 0.877013, 0.520779, -1.063549, -1.102489])


def test_step_entropy_is_the_mean_over_sampled_tokens_only():
    entropy_ST = torch.tensor([[0.1, 0.3, 9.0], [0.5, 0.6, 0.7]])
    mask_ST = torch.tensor([[True, True, False], [True, True, True]])
    close(step_entropy(entropy_ST, mask_ST), [0.2, 0.6])
