"""Paired statistics of two success rates on the same tasks, against hand arithmetic and scipy."""

from __future__ import annotations

import math

import pytest

from empg_cli.stats.paired import mcnemar_exact, paired_proportion_difference


def test_mcnemar_by_hand() -> None:
    # 5 discordant tasks, 0 against 5: 2 * (1/2)^5 = 0.0625. 1 against 5: 2 * (1 + 6) / 64 = 0.21875.
    assert mcnemar_exact(0, 5) == mcnemar_exact(5, 0) == 0.0625
    assert mcnemar_exact(1, 5) == 0.21875
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


def test_mcnemar_is_scipys_binomial_test() -> None:
    binomtest = pytest.importorskip("scipy.stats", reason="needs scipy (dependency group test)").binomtest
    for first in range(0, 40, 3):
        for second in range(1, 40, 4):
            assert mcnemar_exact(first, second) == pytest.approx(binomtest(first, first + second).pvalue)


def test_difference_by_hand() -> None:
    # n = 98, gained 20, lost 9: cells + 1/2 give 20.5 and 9.5 of 100, centre 0.11;
    # variance (0.30 - 0.0121) / 100 = 0.002879, half 1.959964 * 0.053657 = 0.105165.
    found = paired_proportion_difference(gained=20, lost=9, n=98)
    assert found.value == pytest.approx(11 / 98)
    assert (found.low, found.high) == pytest.approx((0.11 - 0.105165, 0.11 + 0.105165), abs=1e-6)


def test_equal_policies_have_an_interval_and_swapping_turns_it_around() -> None:
    same = paired_proportion_difference(gained=0, lost=0, n=140)
    # 1.959964 * sqrt((1 / 142) / 142) = 1.959964 / 142 = 0.013803
    assert (same.value, same.low, same.high) == (
        0.0,
        pytest.approx(-0.013803, abs=1e-6),
        pytest.approx(0.013803, abs=1e-6),
    )
    there = paired_proportion_difference(gained=7, lost=2, n=30)
    back = paired_proportion_difference(gained=2, lost=7, n=30)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_the_interval_covers_what_it_promises() -> None:
    """Exact coverage by enumeration: 60 tasks, the second policy gains 15 % and loses 10 % of them."""
    n, gain, loss = 60, 0.15, 0.10
    covered = 0.0
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            found = paired_proportion_difference(gained=gained, lost=lost, n=n)
            if found.low <= gain - loss <= found.high:
                ways = math.comb(n, gained) * math.comb(n - gained, lost)
                covered += ways * gain**gained * loss**lost * (1 - gain - loss) ** (n - gained - lost)
    assert 0.93 < covered < 0.98


@pytest.mark.parametrize("counts", [{"gained": -1, "lost": 0, "n": 5}, {"gained": 4, "lost": 2, "n": 5}])
def test_impossible_counts_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="gained and lost"):
        paired_proportion_difference(**counts)
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)
