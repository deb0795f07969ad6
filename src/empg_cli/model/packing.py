"""Rows packed without padding, in which a beginning that rows share stands once.

Rows in lexicographic order walk through the tree of their beginnings: what a row has in common with the one before it
has been packed already, so only the rest of it is new. New tokens see the earlier tokens of their row, wherever these
stand, and one another up to themselves; so a hidden state is the same as in a row of its own, and the gradient of a
shared token sums what all its rows ask of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

SHARED_LEAST = 8
"""A shorter common beginning is read again: joining two parts of a row costs about as much as so many tokens."""


@dataclass(frozen=True, slots=True)
class Read:
    """Neighbouring queries of one row and the tokens that they see."""

    queries: slice
    keys: tuple[slice, ...]
    """Places of the row's tokens in order; the last ones are those of the queries, each of which sees up to its own."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    ids_N: Tensor
    """long [N]: the tokens of all rows, shared ones once."""
    position_N: Tensor
    """long [N]: the column of each in its rows."""
    reads: list[Read]
    """Together they hold every token as a query, in order."""
    places: list[np.ndarray]
    """Of each row, the places of its tokens."""

    def reads_of(self, place_U: np.ndarray) -> list[Read]:
        """The reads when only some tokens ask; queries are numbered in the order of `place_U`, ascending and unique."""
        bounds_R = np.array([read.queries.stop for read in self.reads])
        read_U = np.searchsorted(bounds_R, place_U, side="right")
        is_new_U = (np.diff(place_U, prepend=-2) != 1) | (np.diff(read_U, prepend=-1) != 0)
        starts = [*np.flatnonzero(is_new_U).tolist(), len(place_U)]
        chosen = []
        for start, stop in pairwise(starts):
            *before, own = self.reads[read_U[start]].keys
            chosen.append(Read(slice(start, stop), (*before, slice(own.start, int(place_U[stop - 1]) + 1))))
        return chosen


def pack(rows: Sequence[np.ndarray]) -> PackedRows:
    """Pack rows of token ids, none of them empty."""
    order, shared = tree_order(rows)
    places: list[np.ndarray] = [np.empty(0)] * len(rows)
    reads: list[Read] = []
    new_ids, positions = [], []
    path: list[slice] = []
    size = 0
    for number, begin in zip(order, shared, strict=True):
        row = rows[number]
        path = list(_first(path, begin))
        if begin < len(row):
            new = slice(size, size + len(row) - begin)
            path.append(new)
            reads.append(Read(new, tuple(path)))
            new_ids.append(row[begin:])
            positions.append(np.arange(begin, len(row)))
            size = new.stop
        places[number] = np.concatenate([np.arange(part.start, part.stop) for part in path])
    return PackedRows(
        ids_N=torch.from_numpy(np.concatenate(new_ids)),
        position_N=torch.from_numpy(np.concatenate(positions)),
        reads=reads,
        places=places,
    )


def _first(path: Sequence[slice], count: int) -> Iterator[slice]:
    """The first tokens of a path."""
    for part in path:
        if count <= 0:
            return
        yield slice(part.start, min(part.stop, part.start + count))
        count -= part.stop - part.start


def tree_order(rows: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """Lexicographic order of rows of ids, and of each row in it how many first tokens the row before it has packed.

    In a run of this order the first row is read whole, the others from there on.
    """
    keys = [row.astype(">u4").tobytes() for row in rows]  # bytes compare as these numbers do
    order = sorted(range(len(rows)), key=keys.__getitem__)
    common = [_common(rows[before], rows[row]) for before, row in pairwise(order)]
    return order, [0, *(size if size >= SHARED_LEAST else 0 for size in common)][: len(rows)]


def _common(left: np.ndarray, right: np.ndarray) -> int:
    """How many first numbers are equal."""
    size = min(len(left), len(right))
    differs = left[:size] != right[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size
