"""Trajectories to tensors, and the split into mini-batches and micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from empg_cli.types import Batch, Step, Trajectory


def make_batch(trajectories: Sequence[Trajectory], *, append_only: bool) -> Batch:
    """Lay out trajectories as rows (one each in transcript context, one per step in window context) and step tensors.

    Trajectories without a single step (the opening prompt did not fit) are in group and reward statistics only.
    """
    row_ids: list[Tensor] = []
    step_row: list[int] = []
    step_start: list[int] = []
    trajectory_of: list[int] = []
    next_step: list[int] = []
    steps: list[Step] = []
    for number, trajectory in enumerate(trajectories):
        row: list[int] = []
        for turn, step in enumerate(trajectory.steps):
            if not append_only:
                row = []
            row.extend(step.prompt_ids)
            step_row.append(len(row_ids))
            step_start.append(len(row))
            row.extend(step.response_ids)
            next_step.append(len(steps) + 1 if turn + 1 < len(trajectory.steps) else -1)
            trajectory_of.append(number)
            steps.append(step)
            if not append_only or turn + 1 == len(trajectory.steps):
                row_ids.append(torch.tensor(row))
    count_S = torch.tensor([len(step.response_ids) for step in steps], dtype=torch.long)
    width = int(count_S.max()) if steps else 0
    return Batch(
        row_ids=row_ids,
        step_row_S=torch.tensor(step_row, dtype=torch.long),
        step_start_S=torch.tensor(step_start, dtype=torch.long),
        mask_ST=torch.arange(width)[None] < count_S[:, None],
        token_ST=_pad([step.response_ids for step in steps], torch.long),
        old_logprob_ST=_pad([step.logprobs for step in steps], torch.float32),
        entropy_ST=_pad([step.entropies for step in steps], torch.float32),
        trajectory_S=torch.tensor(trajectory_of, dtype=torch.long),
        next_S=torch.tensor(next_step, dtype=torch.long),
        group_N=torch.tensor([trajectory.group for trajectory in trajectories], dtype=torch.long),
        reward_N=torch.tensor([trajectory.reward for trajectory in trajectories]),
        reward_S=torch.tensor([step.reward for step in steps]),
        anchor_S=[step.observation for step in steps],
    )


def minibatches(batch: Batch, count: int, order_N: Tensor) -> Iterator[Tensor]:
    """Split the steps into `count` parts of whole trajectories, taken in the order given: long [s] each."""
    for part_N in order_N.chunk(count):
        steps_S = torch.isin(batch.trajectory_S, part_N).nonzero()[:, 0]
        if len(steps_S):
            yield steps_S


def microbatches(batch: Batch, steps_S: Tensor, tokens: int) -> Iterator[tuple[list[int], Tensor]]:
    """Rows of similar length in groups of at most `tokens` padded tokens (at least one row): (rows, their steps).

    Sorting by length keeps padding small; which rows share a forward pass never changes the gradient.
    """
    step_row_S = batch.step_row_S[steps_S]
    rows = sorted(set(step_row_S.tolist()), key=lambda row: (-len(batch.row_ids[row]), row))
    start = 0
    while start < len(rows):
        size = max(1, tokens // len(batch.row_ids[rows[start]]))
        part = rows[start : start + size]
        yield part, steps_S[torch.isin(step_row_S, torch.tensor(part))]
        start += size


def _pad(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    if not rows:
        return torch.zeros(0, 0, dtype=dtype)
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True)
