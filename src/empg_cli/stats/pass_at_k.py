"""pass@k: the chance that at least one of k attempts at a task succeeds, from n >= k attempts.

Pure functions of plain numbers; nothing of ours is imported but the interval types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from empg_cli.stats.intervals import Estimate

MIN_TASKS = 20
"""With fewer tasks no bootstrap interval is shown: redrawing a handful of tasks says too little about others."""


def pass_at_k(n: int, successes: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k), unbiased (arXiv 2107.03374, Eq. 1); 1 - (1 - c/n)^k would be biased for n near k."""
    if not 1 <= k <= n or not 0 <= successes <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= successes <= n, got k={k}, n={n}, successes={successes}")
    return 1.0 - math.comb(n - successes, k) / math.comb(n, k)


def ks(attempts: int) -> list[int]:
    """1, 2, 4, ... up to the number of attempts."""
    return [2**power for power in range(attempts.bit_length()) if 2**power <= attempts]


def mean_over_tasks(
    strata: Mapping[str, Sequence[float]],
    *,
    each_counts_once: bool = False,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of a value per task, with a percentile bootstrap over tasks, redrawn within each stratum.

    Chance in the choice of tasks and in the attempts is in it, chance in training is not. Meant for 50 tasks or more
    in a stratum; where all of them have the same value, the interval is a point.

    Args:
        strata: name -> a value for each task; empty ones are left out. A single stratum is the plain bootstrap.
        each_counts_once: the mean of the strata's means (the averages of arXiv 2509.09265, Table 2), not of the tasks.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in strata.values() if len(values)]
    if not columns:
        raise ValueError("a mean over tasks needs at least one task")
    sizes = np.array([len(column) for column in columns], dtype=np.float64)
    weights = np.full(len(columns), 1 / len(columns)) if each_counts_once else sizes / sizes.sum()
    generator = np.random.default_rng(seed)
    mean_R = np.zeros(resamples)
    for weight, column in zip(weights, columns, strict=True):
        values, counts = np.unique(column, return_counts=True)
        drawn_RV = generator.multinomial(len(column), counts / len(column), size=resamples)
        mean_R += weight * (drawn_RV @ values) / len(column)
    tail = (1 - confidence) / 2
    low, high = np.quantile(mean_R, [tail, 1 - tail])
    mean = float(sum(weight * column.mean() for weight, column in zip(weights, columns, strict=True)))
    return Estimate(mean, min(float(low), mean), max(float(high), mean), int(sizes.sum()))
