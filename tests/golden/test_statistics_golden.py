"""Hand-checked numbers for every interval and test that a report prints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.stats.intervals import iqm, iqm_difference, iqm_interval, t_interval, t_quantile, wilson_interval
from empg_cli.stats.paired import holm, paired_difference, sign_flip_floor, sign_flip_test


def test_wilson_by_hand():
    # 8 of 10, z = 1.959964, z^2 = 3.841459: centre .8 + .192073 = .992073,
    # half = z sqrt(.16/10 + 3.841459/400) = 1.959964 * .160011 = .313617, scale 1.384146
    low, high = wilson_interval(8, 10)
    assert (low, high) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_wilson_at_the_ends():
    # k = n: low = n / (n + z^2) = 134 / 137.841459; the normal interval would be [1, 1]
    assert wilson_interval(134, 134) == (pytest.approx(0.972131, abs=1e-6), 1.0)
    # k = 0: high = z^2 / (n + z^2) = 3.841459 / 13.841459
    assert wilson_interval(0, 10) == (0.0, pytest.approx(0.277533, abs=1e-6))


@given(st.integers(1, 400), st.data())
def test_wilson_is_inside_the_unit_interval_and_mirrors(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    mirrored = wilson_interval(n - successes, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes must lie in"):
        wilson_interval(successes, n)


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.995, 0.9999])
def test_t_quantile_closed_forms(probability):
    # df = 1 is Cauchy: tan(pi (p - 1/2)); df = 2: (2p - 1) / sqrt(2 p (1 - p))
    assert t_quantile(probability, 1) == pytest.approx(math.tan(math.pi * (probability - 0.5)), rel=1e-9)
    closed = (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    assert t_quantile(probability, 2) == pytest.approx(closed, rel=1e-9)


def test_t_quantile_table():
    # any printed t table, column 0.975
    for df, expected in {3: 3.182446, 4: 2.776445, 9: 2.262157, 29: 2.045230, 100: 1.983972}.items():
        assert t_quantile(0.975, df) == pytest.approx(expected, abs=1e-6)
    assert t_quantile(0.975, 1e6) == pytest.approx(1.959966, abs=1e-6)
    assert t_quantile(0.025, 4) == -t_quantile(0.975, 4)
    assert t_quantile(0.5, 4) == 0


def test_t_interval_by_hand():
    # mean 2, s = 1, t(.975, 2) = 4.302653: half = 4.302653 / sqrt(3) = 2.484138
    estimate = t_interval([1.0, 2.0, 3.0])
    assert estimate == pytest.approx((2.0, -0.484138, 4.484138, 3), abs=1e-6)


def test_t_interval_needs_two_seeds():
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        t_interval([0.7])


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_t_interval_covers_what_it_promises(seeds):
    # the reason why means over seeds get this interval: 93 to 97 % of 4000 draws (their standard error is 0.3 %)
    seeds_RN = np.random.default_rng(seeds).normal(size=(4000, seeds))
    covered = [low <= 0 <= high for _, low, high, _ in (t_interval(list(row)) for row in seeds_RN)]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_a_bootstrap_over_three_seeds_would_not_cover():
    # the percentile bootstrap that many reports use: about 74 %, arithmetic by enumeration of all 27 draws of 3 seeds
    seeds_RN = np.random.default_rng(0).normal(size=(2000, 3))
    draws = np.stack(np.meshgrid(*[range(3)] * 3), axis=-1).reshape(-1, 3)
    low_R, high_R = np.quantile(seeds_RN[:, draws].mean(axis=2), [0.025, 0.975], axis=1)
    assert np.mean((low_R <= 0) & (high_R >= 0)) < 0.80


def test_the_sign_flip_test_keeps_its_level():
    # without a difference p <= 0.05 may come up in at most 5 % of 2000 studies of 6 pairs (2 of 64 cases: 3.1 %)
    difference_RN = np.random.default_rng(6).normal(size=(2000, 6))
    rejected = [sign_flip_test(list(row)).p_value <= 0.05 for row in difference_RN]
    assert np.mean(rejected) == pytest.approx(2 / 64, abs=0.012)


def test_sign_flip_by_hand():
    # all of one sign: only that case and its negation reach |sum| = 15, of 2^5
    assert sign_flip_test([1, 2, 3, 4, 5]) == (2 / 32, 2 / 32, True)
    # 3 + 2 - 1 = 4; the 8 signings give |sum| 6, 6, 4, 4, 2, 2, 0, 0: four reach 4
    assert sign_flip_test([3, 2, -1]).p_value == 4 / 8
    # sums of 1, 1, -1 are never below 1 in size
    assert sign_flip_test([1, 1, -1]).p_value == 1.0


def test_sign_flip_of_equal_results_says_nothing():
    assert sign_flip_test([0.0, 0.0, 0.0]) == (1.0, 1.0, True)
    # a pair without a difference adds no evidence: the floor is that of the two others, 2 / 2^2
    assert sign_flip_test([0.0, 1.0, 2.0]) == (0.5, 0.5, True)


def test_sign_flip_counts_equal_sums_in_spite_of_rounding():
    # 0.1 + 0.2 - 0.3 is 5.6e-17, not 0; every case must count as at least that extreme
    assert sign_flip_test([0.1, 0.2, -0.3]).p_value == 1.0


def test_sign_flip_beyond_exact_is_seeded_and_close():
    difference = np.random.default_rng(1).normal(0.3, 1.0, size=20)
    exact = sign_flip_test(list(difference))
    assert exact.is_exact
    drawn = sign_flip_test([*difference, 1e-9])  # a 21st pair that changes no sum to speak of
    assert not drawn.is_exact
    assert drawn == sign_flip_test([*difference, 1e-9])
    # standard error of 100,000 draws is below 0.0016
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.006)
    assert drawn.floor == pytest.approx(1e-5, rel=1e-4)


def test_sign_flip_floor():
    assert [sign_flip_floor(n) for n in (1, 3, 5, 10)] == [1.0, 0.25, 0.0625, 2 / 1024]


def test_paired_difference_by_hand():
    # differences 1, 2, 3: as in the t interval above; all positive, so p = 2 / 2^3
    difference = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert difference[:4] == pytest.approx((2.0, -0.484138, 4.484138, 3), abs=1e-6)
    assert difference.test.p_value == difference.test.floor == 0.25
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1, 2], [1, 2, 3])


def test_holm_by_hand():
    # .01 * 3 = .03; .03 * 2 = .06; .04 * 1 = .04, but never below the one before: .06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    # .6 * 2 is capped at 1
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="must lie in"):
        holm([0.5, 1.5])


def test_iqm_by_hand():
    # 8 values: two cut at each end, whatever they are
    assert iqm([100, 5, 6, -1000, 5, 6, 100, 0]) == (5 + 5 + 6 + 6) / 4
    # 6 values: floor(6 / 4) = 1 cut at each end
    assert iqm([0, 1, 2, 3, 4, 50]) == (1 + 2 + 3 + 4) / 4


def test_iqm_bootstrap_stays_within_its_strata():
    # seeds that agree within each task leave nothing to resample, however far the tasks are apart
    estimate = iqm_interval([[1, 1], [2, 2], [3, 3], [4, 4]])
    assert estimate == (2.5, 2.5, 2.5, 8)


def test_iqm_bootstrap_of_one_stratum_has_the_width_of_its_standard_error():
    # 400 normal values: the IQM's standard error is about 1.09 / sqrt(400) = .054, so the interval about 3.92 * .054
    values = np.random.default_rng(2).normal(size=400)
    estimate = iqm_interval([values.tolist()], resamples=4000)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.high - estimate.low == pytest.approx(0.214, rel=0.15)
    assert estimate == iqm_interval([values.tolist()], resamples=4000)


def test_iqm_difference_by_hand():
    # treatment 1..8 plus 10: IQM 14.5; base 1..8: IQM 4.5. Pairs that agree leave nothing to resample.
    pairs = [[(value + 10.0, value)] for value in map(float, range(1, 9))]
    assert iqm_difference(pairs) == (10.0, 10.0, 10.0, 8)


def test_iqm_difference_redraws_pairs_together():
    # the treatment is the base plus 1 whatever the seed, though the seeds are far apart: the difference is certain
    pairs = [[(value + 1.0, value) for value in (0.0, 5.0, 10.0, 20.0)]] * 3
    assert iqm_difference(pairs)[:3] == pytest.approx((1.0, 1.0, 1.0))
    unpaired = iqm_interval([[value for value, _ in column] for column in pairs])
    assert unpaired.high - unpaired.low > 3


def test_the_stratified_bootstrap_is_narrow_and_we_say_so():
    # 3 benchmarks of 5 seeds, far apart: rliable's interval covers less than 95 %, see reports/across_tables.py
    generator = np.random.default_rng(0)
    seeds_RMN = np.array([0.3, 0.55, 0.8])[:, None] + 0.05 * generator.normal(size=(4000, 3, 5))
    truth = np.mean([iqm(values.ravel()) for values in seeds_RMN])
    found = [iqm_interval(values.tolist(), resamples=300) for values in seeds_RMN[:300]]
    assert 0.84 < np.mean([one.low <= truth <= one.high for one in found]) < 0.95


def test_a_drawn_sign_flip_test_never_says_zero():
    # 30 equal differences: no draw of 999 has all signs alike (2 in 2^30 do), so p = (1 + 0) / (1 + 999)
    found = sign_flip_test([1.0] * 30, resamples=999)
    assert found.p_value == found.floor == pytest.approx(0.001)
    assert not found.is_exact
