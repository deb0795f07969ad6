"""EMPG against a slow transcription of the paper's pseudo-code (arXiv 2509.09265, Algorithms 2 and 3).

The transcription works as the pseudo-code does: Python floats, one sample after the other, segments of the token row,
and the mean over first tokens at the end. The pseudo-code adds 1e-8 to the mean in the denominator of g, which we leave
out: without it both agree to rounding, with it to 1e-8 / mean times the advantage.
"""

import math
from random import Random

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from empg_cli.algorithms.empg import modulate, step_entropy


def credit_by_loops(advantages, episodes, k, k_future, zeta, scale_eps):
    """`episodes`: per sample, per step, the entropies of its tokens. Returns one credit per sample and step."""
    entropies = [[sum(tokens) / len(tokens) for tokens in steps] for steps in episodes]
    everything = [h for steps in entropies for h in steps]
    low, high = min(everything), max(everything)
    normalised = [[(h - low) / (high - low + 1e-8) for h in steps] for steps in entropies]
    scales = [math.exp(-k * h) for steps in normalised for h in steps]
    mean_scale = sum(scales) / len(scales)
    credit = []
    for advantage, steps in zip(advantages, normalised, strict=True):
        row = []
        for t, h in enumerate(steps):
            value = advantage * math.exp(-k * h) / (mean_scale + scale_eps)
            if t + 1 < len(steps):
                value += zeta * math.exp(-k_future * steps[t + 1])
            row.append(value)
        credit.append(row)
    mean = sum(value for row in credit for value in row) / len(everything)
    return [[value - mean for value in row] for row in credit]


def tensors(advantages, episodes):
    """The same batch as step tensors, padding filled with NaN."""
    steps = [tokens for episode in episodes for tokens in episode]
    width = max(len(tokens) for tokens in steps)
    entropy_ST = torch.full((len(steps), width), math.nan, dtype=torch.float64)
    for row, tokens in enumerate(steps):
        entropy_ST[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.float64)
    mask_ST = ~entropy_ST.isnan()
    next_step, advantage_S = [], []
    for advantage, episode in zip(advantages, episodes, strict=True):
        first = len(next_step)
        next_step += [*range(first + 1, first + len(episode)), -1]
        advantage_S += [advantage] * len(episode)
    return (
        torch.tensor(advantage_S, dtype=torch.float64),
        step_entropy(entropy_ST, mask_ST),
        torch.tensor(next_step),
    )


# Multiples of 1/8, so that equal entropies are common.
token = st.integers(0, 24).map(lambda eighth: eighth / 8)
episodes = st.lists(st.lists(st.lists(token, min_size=1, max_size=4), min_size=1, max_size=5), min_size=1, max_size=6)
knob = st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 2.0])
advantage = st.floats(-3, 3)


@settings(max_examples=1000, deadline=None)
@given(episodes, st.lists(advantage, min_size=6, max_size=6), knob, knob, knob, st.randoms(use_true_random=False))
@example([[[1.0]]], [1.0] * 6, 1.0, 1.0, 0.05, Random(0))  # one step in all
@example([[[0.5], [0.5]], [[0.5]]], [1.0, -1.0] + [0.0] * 4, 1.0, 1.0, 0.05, Random(0))  # all equal
def test_modulate_is_the_pseudo_code_in_any_row_order(episodes, advantages, k, k_future, zeta, rng):
    advantages = advantages[: len(episodes)]
    advantage_S, entropy_S, next_S = tensors(advantages, episodes)
    credit_S = modulate(advantage_S, entropy_S, next_S, k=k, k_future=k_future, zeta=zeta)
    # |A| <= 3, g <= e^2 and mean >= e^-2: the published epsilon moves a credit by at most 2 * 3 e^4 1e-8 = 3.3e-6
    for scale_eps, tolerance in ((0.0, 1e-10), (1e-8, 3.3e-6)):
        rows = credit_by_loops(advantages, episodes, k, k_future, zeta, scale_eps)
        expected = torch.tensor([value for row in rows for value in row], dtype=torch.float64)
        torch.testing.assert_close(credit_S, expected, atol=tolerance, rtol=0)

    order = list(range(len(next_S)))
    rng.shuffle(order)
    position = torch.empty(len(order), dtype=torch.long)
    position[order] = torch.arange(len(order))
    shuffled_next_S = next_S[order]
    shuffled_next_S = torch.where(shuffled_next_S >= 0, position[shuffled_next_S.clamp_min(0)], -1)
    shuffled_S = modulate(advantage_S[order], entropy_S[order], shuffled_next_S, k=k, k_future=k_future, zeta=zeta)
    torch.testing.assert_close(shuffled_S, credit_S[order], atol=1e-12, rtol=0)


@settings(max_examples=200, deadline=None)
@given(episodes, st.lists(advantage, min_size=6, max_size=6))
def test_neutral_knobs_are_the_base_algorithm_bit_for_bit(episodes, advantages):
    advantage_S, entropy_S, next_S = tensors(advantages[: len(episodes)], episodes)
    for dtype in (torch.float32, torch.float64):
        base_S = advantage_S.to(dtype)
        credit_S = modulate(base_S, entropy_S.to(dtype), next_S, k=0.0, zeta=0.0, center=False)
        assert torch.equal(credit_S, base_S)


@settings(max_examples=200, deadline=None)
@given(episodes, st.lists(advantage, min_size=6, max_size=6), knob)
def test_scale_has_mean_one_and_credit_has_mean_zero(episodes, advantages, k):
    advantage_S, entropy_S, next_S = tensors(advantages[: len(episodes)], episodes)
    weight_S = modulate(torch.ones_like(advantage_S), entropy_S, next_S, k=k, zeta=0.0, center=False)
    assert weight_S.mean().item() == pytest.approx(1.0, abs=1e-12)
    assert modulate(advantage_S, entropy_S, next_S, k=k).mean().item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_entropy_that_is_no_number_is_refused_with_its_row(bad):
    entropy_S = torch.tensor([0.1, 0.2, bad, 0.3])
    with pytest.raises(ValueError, match=r"entropy of step 2 is (nan|inf) \(1 of 4"):
        modulate(torch.ones(4), entropy_S, torch.tensor([1, 2, 3, -1]))


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
        modulate(torch.ones(3), torch.ones(3), torch.tensor([1, -1]))
    with pytest.raises(ValueError, match="one value per step"):
        modulate(torch.ones(2), torch.ones(3), torch.tensor([1, 2, -1]))


def test_a_step_without_tokens_is_refused():
    mask_ST = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ValueError, match="step 1 has no sampled token"):
        step_entropy(torch.ones(2, 2), mask_ST)


def test_an_empty_batch_stays_empty():
    nothing = torch.empty(0)
    assert modulate(nothing, nothing, torch.empty(0, dtype=torch.long)).shape == (0,)


def test_no_gradient_flows_through_the_entropies():
    entropy_S = torch.tensor([0.2, 0.6, 1.0], requires_grad=True)
    assert not modulate(torch.ones(3), entropy_S, torch.tensor([1, 2, -1])).requires_grad
