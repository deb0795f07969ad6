"""Means and rank correlations over clusters."""

from __future__ import annotations

import numpy as np
import pytest

from empg_cli.evaluation.theory import bins_of_episodes
from empg_cli.stats.clustered import clustered_mean, clustered_rank_correlation, rank_correlation
from empg_cli.stats.intervals import t_interval, t_quantile


def test_clusters_of_one_give_students_interval():
    values = [0.71, 0.65, 0.78, 0.74]
    assert clustered_mean(values, [4, 7, 1, 0]) == pytest.approx(t_interval(values))


def test_repeating_a_cluster_adds_no_certainty():
    # Each value three times over: nothing new, so the interval must stay as it is; by single values it would shrink.
    values, clusters = [1.0, 2.0, 4.0], [0, 1, 2]
    once, thrice = clustered_mean(values, clusters), clustered_mean(values * 3, clusters * 3)
    assert thrice[:3] == pytest.approx(once[:3])
    assert thrice.n == 9


def test_unequal_clusters_by_hand():
    # mean 2; cluster sums of deviations: (1-2)+(2-2) = -1 and (3-2) = 1; 2/1 * (1 + 1) / 3^2 = 4/9, error 2/3
    found = clustered_mean([1.0, 2.0, 3.0], [0, 0, 1])
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(2 / 3 * t_quantile(0.975, 1))
    with pytest.raises(ValueError, match="at least 2"):
        clustered_mean([1.0, 2.0], [5, 5])


def test_rank_correlation():
    # ranks 1 2 3 4 and 1 3 2 4: differences 0 1 1 0, rho = 1 - 6 * 2 / (4 * 15) = 0.8
    assert rank_correlation([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 3], [8, 4, 2]) == pytest.approx(-1.0)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) == 0.0
    # ties share their mean rank: 1.5 1.5 3 against 1 2 3; centred -.5 -.5 1 and -1 0 1: 1.5 / sqrt(1.5 * 2)
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / 3**0.5)


def test_rank_correlation_like_scipys():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (pip install empg-cli[report])")
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 9, 50), generator.normal(size=50)
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_the_interval_of_a_rank_correlation_holds_it_and_is_repeatable():
    generator = np.random.default_rng(1)
    x = generator.normal(size=120)
    y = x + generator.normal(size=120)
    clusters = np.repeat(np.arange(20), 6)
    found = clustered_rank_correlation(x, y, clusters, resamples=200)
    assert found == clustered_rank_correlation(x, y, clusters, resamples=200)
    assert 0.4 < found.low < found.value == rank_correlation(x, y) < found.high < 1


def test_no_bin_rests_on_a_single_episode():
    order = np.arange(8)
    # episode 0 made the first four steps: bins of 2 or 3 would be its own, two bins of four as well; one bin is left
    assert [part.tolist() for part in bins_of_episodes(order, np.array([0, 0, 0, 0, 1, 1, 1, 1]))] == [list(range(8))]
    mixed = bins_of_episodes(order, np.array([0, 1, 0, 1, 0, 1, 0, 1]))
    assert [part.tolist() for part in mixed] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_one_cluster_has_no_interval_of_a_rank_correlation():
    with pytest.raises(ValueError, match="at least 2 of them, got 1"):
        clustered_rank_correlation([1, 2, 3], [1, 3, 2], [0, 0, 0])
