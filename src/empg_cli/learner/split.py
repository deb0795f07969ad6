"""The split of a batch into mini-batches of whole trajectories, and of these into micro-batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from empg_cli.learner.buckets import even_length_groups, even_packed_groups, length_groups, packed_groups
from empg_cli.model.batch import tokens_read
from empg_cli.model.packing import tree_order
from empg_cli.ranks import ALONE, Ranks
from empg_cli.types import Batch

Part = tuple[list[int], Tensor]
"""A micro-batch: rows, and their steps."""


def minibatches(batch: Batch, count: int, order_N: Tensor) -> Iterator[Tensor]:
    """Split the steps into `count` parts of whole trajectories, taken in the order given: long [s] each. Parts differ
    by one trajectory at most, also where episodes that count nowhere leave a number that `count` does not divide."""
    for part_N in order_N.tensor_split(max(1, min(count, len(order_N)))):
        steps_S = torch.isin(batch.trajectory_S, part_N).nonzero()[:, 0]
        if len(steps_S):
            yield steps_S


def microbatches(batch: Batch, steps_S: Tensor, tokens: int, *, packs: bool) -> list[Part]:
    """Groups of rows that a model computes with at most `tokens` tokens (at least one row): (rows, their steps).

    Which rows share a forward pass changes speed and memory, never the gradient.

    Args:
        packs: rows are packed, tokens that they share counted once; else they are padded, padding included.
    """
    ids = tokens_read(batch, steps_S)
    groups = packed_groups(list(ids.values()), tokens) if packs else length_groups(list(map(len, ids.values())), tokens)
    return _parts(batch, steps_S, list(ids), groups)


def _parts(batch: Batch, steps_S: Tensor, rows: Sequence[int], groups: Sequence[Sequence[int]]) -> list[Part]:
    """
    Args:
        rows: of the batch, which groups are made of by their place here.
    """
    parts = [[rows[index] for index in group] for group in groups]
    part_of_row_B = torch.empty(len(batch.row_ids), dtype=torch.long)
    for number, part in enumerate(parts):
        part_of_row_B[part] = number
    part_S = part_of_row_B[batch.step_row_S[steps_S]]
    sizes = torch.bincount(part_S, minlength=len(parts)).tolist()
    return list(zip(parts, steps_S[torch.argsort(part_S, stable=True)].split(sizes), strict=True))


@dataclass(frozen=True, slots=True)
class Dealt:
    """The micro-batches of a pass over some steps, dealt out to ranks."""

    all: list[Part]
    """The same on every rank."""
    own: list[Part]
    """What this rank reads. All ranks read as many, each of about the size of the others' at that time: passes of a
    spread model wait for one another."""
    counted: int
    """So many of its own are its to count; those behind them only keep the others company."""


def dealt(batch: Batch, steps_S: Tensor, tokens: int, *, packs: bool, ranks: Ranks = ALONE) -> Dealt:
    """Micro-batches of at most `tokens` tokens (or one row); for several ranks as many for each, of even size."""
    if ranks.size == 1 or not len(steps_S):
        parts = microbatches(batch, steps_S, tokens, packs=packs)
        return Dealt(parts, parts, len(parts))
    ids = tokens_read(batch, steps_S)
    groups = (
        even_packed_groups(list(ids.values()), tokens, ranks.size)
        if packs
        else even_length_groups(list(map(len, ids.values())), tokens, ranks.size)
    )
    parts = _parts(batch, steps_S, list(ids), groups)
    loads = [tokens_computed(batch, [part], packs=packs) for part in parts]
    by_load = [parts[number] for number in sorted(range(len(parts)), key=lambda number: -loads[number])]
    # Back and forth: whoever has the largest of one round has the smallest of the next.
    rounds = [by_load[start : start + ranks.size] for start in range(0, len(parts), ranks.size)]
    places = [ranks.rank if number % 2 == 0 else ranks.size - 1 - ranks.rank for number in range(len(rounds))]
    own = [dealt_now[place] for dealt_now, place in zip(rounds, places, strict=True) if place < len(dealt_now)]
    company = [_least(batch, steps_S)] * (len(rounds) - len(own))
    return Dealt(parts, own + company, len(own))


def _least(batch: Batch, steps_S: Tensor) -> Part:
    """Next to nothing: the step of these that a model reads the fewest tokens to predict."""
    step = steps_S[batch.step_start_S[steps_S].argmin()]
    return [int(batch.step_row_S[step])], step[None]


def longest_row(batch: Batch, steps_S: Tensor) -> tuple[int, int]:
    """Tokens of the longest row that holds one of these steps, and how many such rows there are."""
    rows = torch.unique(batch.step_row_S[steps_S]).tolist()
    return max((len(batch.row_ids[row]) for row in rows), default=0), len(rows)


def tokens_computed(batch: Batch, parts: Sequence[tuple[list[int], Tensor]], *, packs: bool) -> int:
    """Tokens that a model computes in these micro-batches: padding included, shared ones once where rows are packed."""
    total = 0
    for _, steps_S in parts:
        ids = list(tokens_read(batch, steps_S).values())
        lengths = list(map(len, ids))
        total += sum(lengths) - sum(tree_order(ids)[1]) if packs else len(ids) * max(lengths)
    return total


def reading_shares(batch: Batch, parts: Sequence[tuple[list[int], Tensor]], *, packs: bool) -> dict[str, float]:
    """Of the tokens that the model computes, the share that is padding; of those that rows are made of, the share that
    is not computed, since another row of the micro-batch begins with the same."""
    real = sum(len(ids) for _, steps_S in parts for ids in tokens_read(batch, steps_S).values())
    computed = tokens_computed(batch, parts, packs=packs)
    return {"perf/padding": max(0.0, 1 - real / computed), "perf/shared": max(0.0, 1 - computed / real)}
