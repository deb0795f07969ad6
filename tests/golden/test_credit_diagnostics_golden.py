"""What is logged about EMPG's credit, and the histograms, on the golden vector of the paper's formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from empg_cli.algorithms.assemble import CreditParts
from empg_cli.algorithms.describe import Metrics, modulation_metrics, outcome_entropies
from empg_cli.algorithms.empg import apply_modulation, modulation, normalise_entropy
from empg_cli.observe.step_histograms import histogram, step_histograms

# Two trajectories of 3 and 2 steps, A = +1 / -1 (tests/golden/test_empg_golden.py).
ENTROPY = torch.tensor([0.2, 0.6, 1.0, 0.4, 0.4])
ADVANTAGE = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
NEXT = torch.tensor([1, 2, -1, 4, -1])
PARTS = modulation(normalise_entropy(ENTROPY), NEXT)


def metrics_of(advantage: Tensor, *, zeta: float, center: bool = True) -> Metrics:
    uncentred, credit = (
        apply_modulation(advantage, PARTS, zeta=zeta, center=is_centred) for is_centred in (False, center)
    )
    return modulation_metrics(advantage, PARTS, uncentred, credit, NEXT)


def test_shift_offset_and_flips_by_hand():
    # normalised entropy 0, .5, 1, .25, .25; exp(-x): 1, .606531, .367879, .778801, .778801, mean .706402
    # g: 1.415624, .858620, .520779, 1.102489, 1.102489; f: .606531, .367879, 0, .778801, 0
    # A g + .05 f: 1.445951, .877014, .520779, -1.063549, -1.102489, mean .135541 = what Eq. 9 takes away
    # credit: 1.310409, .741472, .385238, -1.199090, -1.238030; less A: .310409 -.258528 -.614762 -.199090 -.238030
    found = metrics_of(ADVANTAGE, zeta=0.05)
    assert found["empg/center_offset"] == pytest.approx(0.135541, abs=1e-6)
    assert found["empg/advantage_shift"] == pytest.approx(1.620819 / 5, abs=1e-6)
    assert found["empg/advantage_shift_relative"] == pytest.approx(1.620819 / 5, abs=1e-6)  # mean |A| is 1
    assert found["empg/center_flip_frac"] == found["empg/sign_flip_frac"] == 0.0
    assert found["empg/future_clarity/mean"] == pytest.approx((0.606531 + 0.367879 + 0.778801) / 3, abs=1e-6)


def test_centring_turns_a_small_advantage():
    advantage = torch.tensor([1.0, 1.0, 0.05, 1.0, 1.0])
    found = metrics_of(advantage, zeta=0.0)
    # A g: 1.415624 .858620 .026039 1.102489 1.102489, mean .901052: steps 2 and 3 turn negative
    assert found["empg/center_offset"] == pytest.approx(0.901052, abs=1e-6)
    assert found["empg/center_flip_frac"] == pytest.approx(2 / 5)
    assert found["empg/sign_flip_frac"] == pytest.approx(2 / 5)
    uncentred = metrics_of(advantage, zeta=0.0, center=False)
    assert uncentred["empg/center_offset"] == uncentred["empg/center_flip_frac"] == 0.0


def test_no_relative_shift_where_there_is_nothing_to_shift():
    assert "empg/advantage_shift_relative" not in metrics_of(torch.zeros(5), zeta=0.05)


def test_entropies_by_outcome():
    won = torch.tensor([True, True, True, False, False])
    assert outcome_entropies(ENTROPY, won) == pytest.approx(
        {"empg/step_entropy/won": 0.6, "empg/step_entropy/lost": 0.4}
    )
    assert list(outcome_entropies(ENTROPY, torch.ones(5, dtype=torch.bool))) == ["empg/step_entropy/won"]


def test_histograms_count_every_step_once():
    assert histogram(torch.tensor([0.0, 0.1, 0.5, 1.0]), bins=2).counts == (2, 2)  # 0.5 opens the second bin
    same = histogram(torch.full((3,), 7.0), bins=4)
    assert same.low < 7.0 < same.high and sum(same.counts) == 3
    assert histogram(torch.tensor([0.0, 1.0]), bins=4).edges == (0.0, 0.25, 0.5, 0.75, 1.0)
    credit = apply_modulation(ADVANTAGE, PARTS)
    parts = CreditParts(ENTROPY, ADVANTAGE, PARTS.weight_S, PARTS.clarity_S, credit)
    found = step_histograms(parts, NEXT, torch.tensor([True, True, True, False, False]))
    assert {name: sum(h.counts) for name, h in found.items()} == {
        "hist/step_entropy_won": 3, "hist/step_entropy_lost": 2, "hist/weight": 5, "hist/future_clarity": 3,
        "hist/credit_shift": 5,
    }  # fmt: skip
    assert found["hist/credit_shift"].low == pytest.approx(-0.614762, abs=1e-6)
    plain = CreditParts(ENTROPY, ADVANTAGE, None, None, ADVANTAGE)
    assert list(step_histograms(plain, NEXT, torch.ones(5, dtype=torch.bool))) == ["hist/step_entropy_won"]
