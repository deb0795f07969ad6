"""Trajectories as a batch: the rows that a model reads, and where the sampled tokens of every step stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
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
        is_valid_S=torch.tensor([step.well_formed and step.admissible for step in steps], dtype=torch.bool),
        score_S=torch.tensor([step.score for step in steps]),
        is_won_N=torch.tensor([trajectory.success for trajectory in trajectories], dtype=torch.bool),
        anchor_S=[step.observation for step in steps],
    )


def tokens_read(batch: Batch, steps_S: Tensor) -> dict[int, np.ndarray]:
    """Ids that a model reads to predict the sampled tokens of some steps: of each row that holds one of them, from its
    beginning up to the last token but one of these; what comes after predicts nothing that is asked for."""
    row_S = batch.step_row_S[steps_S].numpy()
    stop_S = (batch.step_start_S[steps_S] + batch.mask_ST[steps_S].sum(1) - 1).numpy()
    stop_B = np.zeros(len(batch.row_ids), dtype=np.int64)
    np.maximum.at(stop_B, row_S, stop_S)
    return {row: batch.row_ids[row][: max(1, stop_B[row])].numpy() for row in np.unique(row_S).tolist()}


def won_steps(trajectories: Sequence[Trajectory]) -> Tensor:
    """bool [S]: the step's episode was solved; in the order of the batch's steps."""
    return torch.tensor([t.success for t in trajectories for _ in t.steps], dtype=torch.bool)


def _padded(rows: Iterable[Sequence[float]], mask_ST: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows' values in the True places of the mask, 0 elsewhere."""
    values_ST = torch.zeros(mask_ST.shape, dtype=dtype)
    values_ST[mask_ST] = torch.tensor(list(chain.from_iterable(rows)), dtype=dtype)
    return values_ST
