"""pass@k and its interval against enumeration, hand arithmetic and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.stats.pass_at_k import ks, mean_over_tasks, pass_at_k


def test_by_hand() -> None:
    # 4 attempts, 2 right: of the C(4, 2) = 6 pairs one holds none of them
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    # 8 attempts, 1 right: half of them hold it; 1 - (1 - 1/8)^4 = 0.41 would be too little
    assert pass_at_k(8, 1, 4) == pytest.approx(0.5)
    # fewer wrong ones than k: every choice holds a right one
    assert pass_at_k(8, 5, 4) == 1.0
    assert pass_at_k(8, 0, 8) == 0.0


@given(st.integers(1, 8), st.data())
def test_it_is_the_share_of_subsets_with_a_success(n: int, data: st.DataObject) -> None:
    successes, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    outcomes = [True] * successes + [False] * (n - successes)
    subsets = list(itertools.combinations(outcomes, k))
    assert pass_at_k(n, successes, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(st.integers(1, 60), st.data())
def test_it_is_the_product_form_of_the_paper(n: int, data: st.DataObject) -> None:
    # arXiv 2107.03374, Figure 3: 1 - prod over i = n-c+1 .. n of (1 - k / i)
    successes, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    factors = [1 - k / i for i in range(n - successes + 1, n + 1)]
    expected = 1.0 if n - successes < k else 1.0 - math.prod(factors)
    assert pass_at_k(n, successes, k) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "successes", "k"), [(4, 2, 5), (4, 5, 1), (4, 2, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, successes: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, successes, k)


def test_ks_are_powers_of_two() -> None:
    assert [ks(attempts) for attempts in (1, 2, 3, 8, 12)] == [[1], [1, 2], [1, 2], [1, 2, 4, 8], [1, 2, 4, 8]]


def test_bootstrap_of_two_tasks_is_known() -> None:
    # redrawn means are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: both tails hold more than 2.5 %
    assert mean_over_tasks({"all": [0.0, 1.0]}) == (0.5, 0.0, 1.0, 2)
    assert mean_over_tasks({"all": [0.3, 0.3, 0.3]}) == pytest.approx((0.3, 0.3, 0.3, 3))


def test_bootstrap_has_the_width_of_the_standard_error() -> None:
    # 400 tasks, half solved: standard error sqrt(.25 / 400) = .025, so 2 * 1.96 * .025 = .098
    found = mean_over_tasks({"all": [0.0, 1.0] * 200})
    assert found.high - found.low == pytest.approx(0.098, rel=0.05)
    assert found == mean_over_tasks({"all": [0.0, 1.0] * 200})


def test_strata_may_count_once_each() -> None:
    strata = {"a": [1.0] * 30, "b": [0.0, 1.0] * 5, "none": []}
    assert mean_over_tasks(strata).value == pytest.approx(35 / 40)
    once = mean_over_tasks(strata, each_counts_once=True)
    assert once.value == pytest.approx((1.0 + 0.5) / 2)
    # only b varies: its redrawn mean is binomial, 2.5 % points 0.2 and 0.8 of 10 tasks, halved by the average
    assert (once.low, once.high) == pytest.approx((0.6, 0.9))


def test_the_interval_covers_pass_at_4() -> None:
    """200 draws of 80 tasks whose chance of success is Beta(1/2, 1/2), 8 attempts each."""
    # E[(1 - p)^4] = (1/2 3/2 5/2 7/2) / (1 2 3 4) = 105/384
    truth = 1 - 105 / 384
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        successes = generator.binomial(8, generator.beta(0.5, 0.5, size=80))
        values = [pass_at_k(8, int(c), 4) for c in successes]
        _, low, high, _ = mean_over_tasks({"all": values}, resamples=1000)
        covered += low <= truth <= high
    assert 0.91 <= covered / 200 <= 0.985  # 95 % +- three standard errors of 200 draws
