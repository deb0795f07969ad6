"""Our own quantiles and intervals against scipy's (dependency group test)."""

from __future__ import annotations

import pytest

from empg_cli.stats.intervals import iqm, iqm_interval, t_interval, t_quantile, wilson_interval
from empg_cli.stats.paired import paired_difference, sign_flip_test

stats = pytest.importorskip("scipy.stats", reason="needs scipy (dependency group test)")


@pytest.mark.parametrize("df", [0.5, 1, 2, 3.7, 10, 29, 1000, 1e6])
@pytest.mark.parametrize("probability", [0.001, 0.3, 0.51, 0.9, 0.975, 0.9995, 0.999999])
def test_t_quantile(probability, df):
    assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 7), (103, 134), (500, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson(successes, n, confidence):
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-10)


def test_t_interval():
    values = [0.71, 0.65, 0.78, 0.74]
    expected = stats.t.interval(0.9, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert t_interval(values, 0.9)[1:3] == pytest.approx(expected, rel=1e-9)


def test_sign_flip():
    differences = [0.03, -0.01, 0.05, 0.02, 0.04, -0.02, 0.01]
    expected = stats.permutation_test(
        (differences,), lambda x: sum(x) / len(x), permutation_type="samples", n_resamples=10_000
    )
    assert sign_flip_test(differences).p_value == pytest.approx(expected.pvalue, abs=1e-12)


def test_iqm():
    values = [0.1, 0.9, 0.4, 0.3, 0.35, 0.8, 0.77, 0.2, 0.6]
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-12)


def test_iqm_is_rliables_aggregate():
    # rliable: scipy.stats.trim_mean(scores, 0.25, axis=None) over runs x tasks, ours over ragged strata
    strata = [[0.1, 0.9, 0.4], [0.3, 0.35, 0.8, 0.77], [0.2, 0.6]]
    flat = [value for column in strata for value in column]
    assert iqm_interval(strata, resamples=50).value == pytest.approx(stats.trim_mean(flat, 0.25), abs=1e-12)


def test_paired_difference():
    treatment, base = [0.61, 0.7, 0.58, 0.66, 0.72], [0.55, 0.71, 0.5, 0.6, 0.6]
    expected = stats.ttest_rel(treatment, base).confidence_interval(0.95)
    assert paired_difference(treatment, base)[1:3] == pytest.approx((expected.low, expected.high), rel=1e-9)
