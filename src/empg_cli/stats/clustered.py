"""Means and rank correlations of values that come in clusters: the steps of one episode are not independent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from empg_cli.stats.intervals import Estimate, t_quantile


def clustered_mean(values: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean with a cluster-robust t interval: C / (C-1) sum_c (sum_{i in c} (x_i - mean))^2 / n^2, C - 1 degrees.

    With clusters of one value each it is Student's interval. One cluster has no interval: ValueError.
    """
    value_N, cluster_N = np.asarray(values, dtype=np.float64), np.unique(clusters, return_inverse=True)[1]
    count = int(cluster_N.max(initial=-1)) + 1
    if count < 2:
        raise ValueError(f"an interval over clusters needs at least 2 of them, got {count}")
    mean = float(value_N.mean())
    sum_C = np.bincount(cluster_N, value_N - mean)
    error = math.sqrt(count / (count - 1) * float(np.square(sum_C).sum())) / len(value_N)
    half = t_quantile(0.5 + confidence / 2, count - 1) * error
    return Estimate(mean, mean - half, mean + half, len(value_N))


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho, ties at their mean rank; 0 when either does not vary."""
    rank_x, rank_y = _centred_ranks(np.asarray(x)), _centred_ranks(np.asarray(y))
    size = math.sqrt(float(rank_x @ rank_x) * float(rank_y @ rank_y))
    return float(rank_x @ rank_y) / size if size else 0.0


def clustered_rank_correlation(
    x: ArrayLike,
    y: ArrayLike,
    clusters: ArrayLike,
    confidence: float = 0.95,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Spearman's rho with a percentile interval over resampled clusters; too narrow with few of them. One cluster has
    no interval: ValueError."""
    x_N, y_N, cluster_N = np.asarray(x), np.asarray(y), np.asarray(clusters)
    rows = [np.flatnonzero(cluster_N == cluster) for cluster in np.unique(cluster_N)]
    if len(rows) < 2:
        raise ValueError(f"an interval over clusters needs at least 2 of them, got {len(rows)}")
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = np.concatenate([rows[number] for number in generator.integers(0, len(rows), size=len(rows))])
        drawn.append(rank_correlation(x_N[chosen], y_N[chosen]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(rank_correlation(x_N, y_N), float(low), float(high), len(x_N))


def _centred_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    ranks: NDArray[np.float64] = rank[place] - (len(values) + 1) / 2
    return ranks
