"""The split of a batch into mini-batches of whole trajectories, and of these into micro-batches of similar rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from empg_cli.learner.buckets import length_groups
from empg_cli.types import Batch


def minibatches(batch: Batch, count: int, order_N: Tensor) -> Iterator[Tensor]:
    """Split the steps into `count` parts of whole trajectories, taken in the order given: long [s] each."""
    for part_N in order_N.chunk(count):
        steps_S = torch.isin(batch.trajectory_S, part_N).nonzero()[:, 0]
        if len(steps_S):
            yield steps_S


def microbatches(batch: Batch, steps_S: Tensor, tokens: int) -> list[tuple[list[int], Tensor]]:
    """Rows of similar length in groups of at most `tokens` padded tokens (at least one row): (rows, their steps).

    Which rows share a forward pass changes speed and memory, never the gradient.
    """
    rows = torch.unique(batch.step_row_S[steps_S]).tolist()
    groups = length_groups([len(batch.row_ids[row]) for row in rows], tokens)
    parts = [[rows[index] for index in group] for group in groups]
    part_of_row_B = torch.empty(len(batch.row_ids), dtype=torch.long)
    for number, part in enumerate(parts):
        part_of_row_B[part] = number
    part_S = part_of_row_B[batch.step_row_S[steps_S]]
    sizes = torch.bincount(part_S, minlength=len(parts)).tolist()
    return list(zip(parts, steps_S[torch.argsort(part_S, stable=True)].split(sizes), strict=True))


def longest_row(batch: Batch, steps_S: Tensor) -> tuple[int, int]:
    """Tokens of the longest row that holds one of these steps, and how many such rows there are."""
    rows = torch.unique(batch.step_row_S[steps_S]).tolist()
    return max((len(batch.row_ids[row]) for row in rows), default=0), len(rows)


def padding_share(batch: Batch, parts: Sequence[tuple[list[int], Tensor]]) -> float:
    """Share of the tokens which the model reads in these micro-batches that is padding."""
    lengths = [[len(batch.row_ids[row]) for row in rows] for rows, _ in parts]
    return 1 - sum(map(sum, lengths)) / sum(len(group) * max(group) for group in lengths)
