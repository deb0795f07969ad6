"""Which rows share a forward pass: rows that begin alike where rows are packed, rows of similar length where padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from empg_cli.model.packing import tree_order

START_TOKENS = 128
"""What one more forward and backward pass costs by itself, in tokens: on a CPU the shipped tiny agent takes about 8 ms
for it beside 0.05 to 0.1 ms a token. Without it every row would come alone, which needs no padding at all."""


def length_groups(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split rows into groups of at most `budget` padded tokens (rows times longest row); a longer row comes alone.

    Of all splits into runs of rows sorted by length this is the one with the fewest padded tokens, START_TOKENS for
    each group included: the exact minimum, by dynamic programming from the shortest row up. Filling each group to the
    brim from the longest row down takes the fewest groups, so it never pads less than this does.

    Returns:
        Row numbers of each group, the longest rows first; equal lengths stay in order.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    counts = np.arange(1, len(order) + 1)
    cost_from = np.zeros(len(order) + 1, dtype=np.int64)  # the least cost of order[start:]
    size_at = np.ones(len(order), dtype=np.int64)  # how many rows the group that begins there takes
    for start in range(len(order) - 1, -1, -1):
        longest = lengths[order[start]]
        most = min(max(1, budget // longest), len(order) - start)
        costs = counts[:most] * longest + cost_from[start + 1 : start + 1 + most]
        size_at[start] = costs.argmin() + 1
        cost_from[start] = costs.min() + START_TOKENS
    groups = []
    start = 0
    while start < len(order):
        groups.append(order[start : start + int(size_at[start])])
        start += int(size_at[start])
    return groups


def packed_groups(rows: Sequence[np.ndarray], budget: int) -> list[list[int]]:
    """Split rows of ids into groups of at most `budget` packed tokens; a longer row comes alone.

    Of all splits into runs of rows in their tree's order (`model.packing`) this is the one with the fewest tokens,
    START_TOKENS for each group included: a beginning that rows of two groups share is computed in both, so groups part
    where rows have little in common. By dynamic programming, as in `length_groups`.
    """
    order, tokens_from = _packed(rows)
    cost_from = np.zeros(len(order) + 1, dtype=np.int64)
    stop_at = np.ones(len(order), dtype=np.int64)  # where the group that begins there ends
    for start in range(len(order) - 1, -1, -1):
        tokens = tokens_from(start)
        most = max(1, int(np.searchsorted(tokens, budget, side="right")))
        costs = tokens[:most] + cost_from[start + 1 : start + 1 + most]
        stop_at[start] = start + 1 + costs.argmin()
        cost_from[start] = costs.min() + START_TOKENS
    groups = []
    start = 0
    while start < len(order):
        groups.append(order[start : int(stop_at[start])])
        start = int(stop_at[start])
    return groups


def _packed(rows: Sequence[np.ndarray]) -> tuple[list[int], Callable[[int], np.ndarray]]:
    """The rows in their tree's order, and the packed tokens of the runs that begin at a place, by their length from 1
    on: the first row of a run is read whole."""
    order, shared = tree_order(rows)
    new_from = np.array([0, *np.cumsum([len(rows[row]) - size for row, size in zip(order, shared, strict=True)])])
    return order, lambda start: new_from[start + 1 :] - new_from[start] + shared[start]


def even_packed_groups(rows: Sequence[np.ndarray], budget: int, ranks: int) -> list[list[int]]:
    """Split rows of ids into groups of at most `budget` packed tokens, as few as can be dealt out to `ranks` in full
    rounds, and the largest of them with as few tokens as can be; a longer row comes alone, and where rows are few there
    are fewer groups. All are runs in the order of the rows' tree."""
    order, tokens_from = _packed(rows)
    return _even_groups(order, tokens_from, budget, ranks)


def even_length_groups(lengths: Sequence[int], budget: int, ranks: int) -> list[list[int]]:
    """The same for padded rows: runs of rows sorted by length, the longest first."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return _even_groups(
        order, lambda start: lengths[order[start]] * np.arange(1, len(order) - start + 1), budget, ranks
    )


def _even_groups(
    order: Sequence[int], tokens_from: Callable[[int], np.ndarray], budget: int, ranks: int
) -> list[list[int]]:
    """
    Args:
        tokens_from: of the runs that begin at a place, by their length from 1 on; ascending.
    """

    def filled(most: int) -> list[list[int]]:
        """Each group to the brim, which takes the fewest of them."""
        groups, start = [], 0
        while start < len(order):
            size = max(1, int(np.searchsorted(tokens_from(start), most, side="right")))
            groups.append(list(order[start : start + size]))
            start += size
        return groups

    count = -(-len(filled(budget)) // ranks) * ranks
    low, high = 0, budget
    while low < high:
        middle = (low + high) // 2
        if len(filled(middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return filled(high)
