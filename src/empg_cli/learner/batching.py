"""Trajectories to tensors, and the split into mini-batches and micro-batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor

from empg_cli.learner.buckets import length_groups
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
    mask_ST = torch.arange(int(count_S.max()) if steps else 0)[None] < count_S[:, None]
    return Batch(
        row_ids=row_ids,
        step_row_S=torch.tensor(step_row, dtype=torch.long),
        step_start_S=torch.tensor(step_start, dtype=torch.long),
        mask_ST=mask_ST,
        token_ST=_padded((step.response_ids for step in steps), mask_ST, torch.long),
        old_logprob_ST=_padded((step.logprobs for step in steps), mask_ST, torch.float32),
        entropy_ST=_padded((step.entropies for step in steps), mask_ST, torch.float32),
        trajectory_S=torch.tensor(trajectory_of, dtype=torch.long),
        next_S=torch.tensor(next_step, dtype=torch.long),
        group_N=torch.tensor([trajectory.group for trajectory in trajectories], dtype=torch.long),
        reward_N=torch.tensor([trajectory.reward for trajectory in trajectories]),
        reward_S=torch.tensor([step.reward for step in steps]),
        # Each from the numbers themselves: a difference of rounded ones would tell equal rewards apart.
        task_reward_S=torch.tensor([step.reward + step.penalty for step in steps]),
        penalty_S=torch.tensor([step.penalty for step in steps]),
        anchor_S=[step.observation for step in steps],
    )


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


def padding_share(batch: Batch, parts: Sequence[tuple[list[int], Tensor]]) -> float:
    """Share of the tokens which the model reads in these micro-batches that is padding."""
    lengths = [[len(batch.row_ids[row]) for row in rows] for rows, _ in parts]
    return 1 - sum(map(sum, lengths)) / sum(len(group) * max(group) for group in lengths)


def _padded(rows: Iterable[Sequence[float]], mask_ST: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows' values in the True places of the mask, 0 elsewhere."""
    values_ST = torch.zeros(mask_ST.shape, dtype=dtype)
    values_ST[mask_ST] = torch.tensor(list(chain.from_iterable(rows)), dtype=dtype)
    return values_ST
