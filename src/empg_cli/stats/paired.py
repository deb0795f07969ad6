"""Paired tests: differences over seeds or tasks that both sides have, their p-values, and how many pairs it takes.

Pure functions of plain numbers; nothing of ours is imported but the interval types.
"""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from empg_cli.stats.intervals import Estimate, are_equal, checked_confidence, t_interval, t_quantile

MAX_EXACT_PAIRS = 20
"""Pairs up to which the sign-flip test counts all 2**n cases."""
MAX_PAIRS_NEEDED = 10_000
"""Where `pairs_needed` gives up."""


class SignFlip(NamedTuple):
    p_value: float
    floor: float
    """The smallest p that this many non-zero differences can give; no effect however large goes below."""
    is_exact: bool


class PairedDifference(NamedTuple):
    mean: float
    low: float | None
    """None where the differences are all equal: nothing then says how they spread."""
    high: float | None
    n: int
    test: SignFlip


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """Tasks by which of two policies, A and B, solved them."""

    kind: str
    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: Estimate
    """Success rate of B minus that of A, with a 95 % paired interval."""
    p_value: float
    """Exact two-sided sign test (McNemar) over the tasks that only one of them solved."""

    @property
    def rate_a(self) -> float:
        return (self.both + self.only_a) / self.n

    @property
    def rate_b(self) -> float:
        return (self.both + self.only_b) / self.n


def paired_difference(
    treatment: Sequence[float], baseline: Sequence[float], confidence: float = 0.95
) -> PairedDifference:
    """Treatment minus baseline, seed by seed, with a t interval over the differences and a sign-flip test."""
    if len(treatment) != len(baseline):
        raise ValueError(f"paired values must be as many on both sides, got {len(treatment)} and {len(baseline)}")
    differences = [a - b for a, b in zip(treatment, baseline, strict=True)]
    mean, low, high, n = t_interval(differences, confidence)
    test = sign_flip_test(differences)
    if are_equal(differences):
        return PairedDifference(mean, None, None, n, test)
    return PairedDifference(mean, low, high, n, test)


def sign_flip_test(differences: Sequence[float], *, resamples: int = 100_000, seed: int = 0) -> SignFlip:
    """Two-sided: how often |sum| gets this large when every difference may as well have had the other sign.

    All 2^n cases up to 20 pairs; beyond that `resamples` seeded draws, p = (1 + hits) / (1 + draws).
    """
    difference_N = np.asarray(differences, dtype=np.float64)
    if difference_N.ndim != 1 or not len(difference_N) or not np.isfinite(difference_N).all():
        raise ValueError("differences must be a non-empty list of finite numbers")
    difference_N = difference_N[difference_N != 0]  # a zero has no sign to flip
    if not len(difference_N):
        return SignFlip(p_value=1.0, floor=1.0, is_exact=True)
    size = np.abs(difference_N).sum()
    threshold = abs(difference_N.sum()) - 1e-12 * size  # equal sums in another order are equal
    floor = sign_flip_floor(len(difference_N))
    if len(difference_N) <= MAX_EXACT_PAIRS:
        # The first sign is fixed: flipping all signs gives the same |sum|, so half of the cases are enough.
        sums = difference_N[:1]
        for difference in difference_N[1:]:
            sums = np.concatenate([sums + difference, sums - difference])
        return SignFlip(float((np.abs(sums) >= threshold).mean()), floor, is_exact=True)
    generator = np.random.default_rng(seed)
    hits = 0
    for start in range(0, resamples, 10_000):  # bounded memory
        rows = min(10_000, resamples - start)
        sign_RN = generator.integers(0, 2, size=(rows, len(difference_N))) * 2.0 - 1.0
        hits += int((np.abs(sign_RN @ difference_N) >= threshold).sum())
    return SignFlip((1 + hits) / (1 + resamples), max(floor, 1 / (1 + resamples)), is_exact=False)


def sign_flip_floor(pairs: int) -> float:
    """Smallest two-sided p of an exact sign-flip test: 2 of 2^n cases. Five seeds cannot go below 0.0625."""
    if pairs < 1:
        raise ValueError(f"pairs must be at least 1, got {pairs}")
    return 2.0 ** (1 - pairs)


def pairs_for_p(below: float, tests: int = 1) -> int:
    """The fewest pairs whose smallest sign-flip p is below this after Holm over so many tests: 6 for 0.05 and one."""
    return next(n for n in itertools.count(1) if tests * sign_flip_floor(n) < below)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; the i-th smallest of m is multiplied by m - i + 1."""
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def pairs_needed(difference: float, sd: float, *, confidence: float = 0.95, power: float = 0.8) -> int:
    """Seeds per variant for a paired t interval to leave out 0 with probability `power`, if the truth is `difference`.

    The smallest n with (t_{1-a/2} + t_{power}) sd / sqrt(n) <= difference, both quantiles at n - 1 degrees of freedom;
    within one of the noncentral t's answer.

    Args:
        sd: standard deviation, over seeds, of the difference between two variants.
    """
    if difference <= 0 or sd < 0 or not math.isfinite(difference + sd):
        raise ValueError(f"difference must be positive and sd not negative, got {difference} and {sd}")
    upper = 0.5 + checked_confidence(confidence) / 2
    checked_confidence(power)

    def is_enough(n: int) -> bool:  # once true it stays so: the quantiles and 1 / sqrt(n) all fall with n
        return (t_quantile(upper, n - 1) + t_quantile(power, n - 1)) * sd / math.sqrt(n) <= difference

    if not is_enough(MAX_PAIRS_NEEDED):
        raise ValueError(f"more than {MAX_PAIRS_NEEDED} seeds: {difference} is too small beside an sd of {sd}")
    return 2 + bisect_left(range(2, MAX_PAIRS_NEEDED), True, key=is_enough)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided sign test over discordant pairs: how often a fair coin is at least this uneven; 1 without any."""
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts must not be negative, got {only_first} and {only_second}")
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << n))


def paired_proportion_difference(*, gained: int, lost: int, n: int, confidence: float = 0.95) -> Estimate:
    """Difference of two success rates over the same n tasks, (gained - lost) / n, with a paired interval.

    Wald's interval after adding half a task to each of the four cells (Agresti and Min 2005), so that it is not empty
    when both policies solve the same tasks; kept inside [-1, 1].
    """
    if n < 1 or gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"gained and lost must be counts of at most n >= 1 tasks, got {gained}, {lost} of {n}")
    z = statistics.NormalDist().inv_cdf(0.5 + checked_confidence(confidence) / 2)
    up, down, total = gained + 0.5, lost + 0.5, n + 2.0
    centre = (up - down) / total
    half = z * math.sqrt((up + down) / total - centre**2) / math.sqrt(total)
    return Estimate((gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half), n)


def paired_counts(kind: str, pairs: Sequence[tuple[bool, bool]]) -> PairedCounts:
    """
    Args:
        kind: name of these tasks.
        pairs: whether A and whether B solved each of them.
    """
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    return PairedCounts(
        kind=kind,
        n=len(pairs),
        both=pairs.count((True, True)),
        only_a=only_a,
        only_b=only_b,
        neither=pairs.count((False, False)),
        difference=paired_proportion_difference(gained=only_b, lost=only_a, n=len(pairs)),
        p_value=mcnemar_exact(only_a, only_b),
    )
