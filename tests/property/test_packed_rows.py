"""Packed rows against the tree of their beginnings, written down plainly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.learner.buckets import START_TOKENS, packed_groups
from empg_cli.model import packing
from empg_cli.model.packing import Read, pack, tree_order

ROWS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=7)
"""Of two words: most rows share beginnings, some are equal or the beginning of another."""


@pytest.fixture(autouse=True, scope="module")
def every_beginning_is_shared() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SHARED_LEAST", 1)
        yield


def arrays(rows: list[list[int]]) -> list[np.ndarray]:
    return [np.array(row) for row in rows]


def beginnings(rows: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(row[:size]) for row in rows for size in range(1, len(row) + 1)}


def seen(read: Read) -> list[list[int]]:
    """Places that each query of a read sees."""
    keys = [place for part in read.keys for place in range(part.start, part.stop)]
    count = read.queries.stop - read.queries.start
    return [keys[: len(keys) - count + number + 1] for number in range(count)]


@given(ROWS)
def test_a_token_is_packed_once_for_each_beginning_and_sees_its_row(rows: list[list[int]]) -> None:
    packed = pack(arrays(rows))
    assert len(packed.ids_N) == len(packed.position_N) == len(beginnings(rows))
    for row, places in zip(rows, packed.places, strict=True):
        assert packed.ids_N[places].tolist() == row
        assert packed.position_N[places].tolist() == list(range(len(row)))
    sees = [places for read in packed.reads for places in seen(read)]
    assert [read.queries.start for read in packed.reads] == [0, *(r.queries.stop for r in packed.reads)][:-1]
    assert len(sees) == len(packed.ids_N)
    for places in packed.places:
        for column, place in enumerate(places.tolist()):
            assert sees[place] == places[: column + 1].tolist()


@given(ROWS, st.data())
def test_chosen_tokens_see_what_they_see_among_all(rows: list[list[int]], data: st.DataObject) -> None:
    packed = pack(arrays(rows))
    sees = [places for read in packed.reads for places in seen(read)]
    chosen = data.draw(st.sets(st.integers(0, len(sees) - 1)))
    place_U = np.array(sorted(chosen), dtype=np.int64)
    assert [places for read in packed.reads_of(place_U) for places in seen(read)] == [sees[place] for place in place_U]


@pytest.mark.parametrize("least", [1, 3])
def test_short_beginnings_are_read_again(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARED_LEAST", least)
    rows = arrays([[5, 6, 7, 8], [5, 6, 9], [5, 6, 7], [1]])
    order, shared = tree_order(rows)
    assert order == [3, 2, 0, 1]
    assert shared == ([0, 0, 3, 2] if least == 1 else [0, 0, 3, 0])
    assert len(pack(rows).ids_N) == 1 + 3 + 1 + (1 if least == 1 else 3)


@given(ROWS, st.integers(1, 40))
def test_groups_keep_to_the_budget_and_cost_least(rows: list[list[int]], budget: int) -> None:
    groups = packed_groups(arrays(rows), budget)
    order, _ = tree_order(arrays(rows))
    assert [row for group in groups for row in group] == order
    size: Callable[[list[int]], int] = lambda group: len(beginnings([rows[row] for row in group]))  # noqa: E731
    assert all(len(group) == 1 or size(group) <= budget for group in groups)
    cuts = range(2 ** (len(order) - 1))
    splits = [
        [
            order[start:stop]
            for start, stop in pairwise([0, *(i + 1 for i in range(len(order) - 1) if cut >> i & 1), len(order)])
        ]
        for cut in cuts
    ]
    allowed = [split for split in splits if all(len(group) == 1 or size(group) <= budget for group in split)]
    cost: Callable[[list[list[int]]], int] = lambda split: sum(size(group) + START_TOKENS for group in split)  # noqa: E731
    assert cost(groups) == min(map(cost, allowed))


def test_members_of_a_group_stay_together() -> None:
    """Three prompts of 300 tokens with four answers of 20: 380 tokens a group, so two of them do not fit into 700."""
    rows = [[prompt] * 300 + [answer] * 20 for answer in range(10, 14) for prompt in range(3)]
    assert [sorted(row % 3 for row in group) for group in packed_groups(arrays(rows), 700)] == [
        [n] * 4 for n in range(3)
    ]
