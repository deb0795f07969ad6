"""The split of rows into micro-batches: complete, within budget, and never more padding than filling to the brim."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.learner import buckets
from empg_cli.learner.buckets import START_TOKENS, length_groups

LENGTHS = st.lists(st.integers(1, 900), max_size=60)


def padded(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(len(group) * max(lengths[row] for row in group) for group in groups)


def brimful(lengths: list[int], budget: int) -> list[list[int]]:
    """From the longest row down, each group as large as the budget allows."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups = []
    while order:
        size = max(1, budget // lengths[order[0]])
        groups.append(order[:size])
        order = order[size:]
    return groups


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 5000))
def test_every_row_once_within_budget_and_no_more_padding_than_brimful(lengths: list[int], budget: int) -> None:
    groups = length_groups(lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget
    assert padded(groups, lengths) <= padded(brimful(lengths, budget), lengths)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(1, 1500))
def test_no_other_split_of_the_sorted_rows_costs_less(lengths: list[int], budget: int) -> None:
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])

    def cost(groups: list[list[int]]) -> int:
        return padded(groups, lengths) + START_TOKENS * len(groups)

    splits = (
        [order[start:stop] for start, stop in zip((0, *cuts), (*cuts, len(order)), strict=True)]
        for number in range(len(order))
        for cuts in combinations(range(1, len(order)), number)
    )
    allowed = (
        groups
        for groups in splits
        if all(len(group) == 1 or len(group) * lengths[group[0]] <= budget for group in groups)
    )
    assert cost(length_groups(lengths, budget)) == min(map(cost, allowed))


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [100, 10, 90, 12, 11]
    # 200 + 36 padded tokens for 223 real ones; one group would read 500, five groups pay five starts.
    monkeypatch.setattr(buckets, "START_TOKENS", 20)
    assert length_groups(lengths, 1000) == [[0, 2], [3, 4, 1]]
    # At a start of 5 tokens the row of 100 is better off alone: 100 + 90 + 36 + 3 x 5 = 241 < 200 + 36 + 2 x 5 = 246.
    monkeypatch.setattr(buckets, "START_TOKENS", 5)
    assert length_groups(lengths, 1000) == [[0], [2], [3, 4, 1]]
    # A row beyond the budget comes alone.
    assert length_groups(lengths, 95)[0] == [0]
