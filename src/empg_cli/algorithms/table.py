"""One row per step: all that advantages and credit are computed from, small enough to gather over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from empg_cli.algorithms.empg import first_entropy, step_entropy
from empg_cli.types import Batch


@dataclass(frozen=True, slots=True)
class StepTable:
    entropy_S: Tensor
    first_entropy_S: Tensor
    """Of the first sampled token."""
    tokens_S: Tensor
    """long [S]: sampled tokens."""
    trajectory_S: Tensor
    next_S: Tensor
    reward_S: Tensor
    group_N: Tensor
    reward_N: Tensor
    anchor_S: tuple[str, ...]
    """Observations; empty when the batch carries none."""
    task_reward_S: Tensor
    """Rewards before penalties."""
    penalty_S: Tensor
    is_valid_S: Tensor
    """bool [S]: well formed and accepted by the environment."""
    score_S: Tensor | None = None
    """The benchmark's own number after each step; None when the batch carries none, like the next."""
    is_won_N: Tensor | None = None

    @property
    def group_of_step(self) -> Tensor:
        return self.group_N[self.trajectory_S]

    @property
    def task_reward_of_trajectory(self) -> Tensor:
        """float [N]: return of each trajectory before penalties."""
        return self.task_reward_S.new_zeros(len(self.group_N)).index_add_(0, self.trajectory_S, self.task_reward_S)

    @property
    def tokens_of_trajectory(self) -> Tensor:
        """long [N]: sampled tokens of each trajectory."""
        return self.tokens_S.new_zeros(len(self.group_N)).index_add_(0, self.trajectory_S, self.tokens_S)


def step_table(batch: Batch) -> StepTable:
    return StepTable(
        entropy_S=step_entropy(batch.entropy_ST, batch.mask_ST),
        first_entropy_S=first_entropy(batch.entropy_ST, batch.mask_ST),
        tokens_S=batch.mask_ST.sum(dim=1),
        trajectory_S=batch.trajectory_S,
        next_S=batch.next_S,
        reward_S=batch.reward_S,
        group_N=batch.group_N,
        reward_N=batch.reward_N,
        anchor_S=tuple(batch.anchor_S),
        task_reward_S=batch.reward_S if batch.task_reward_S is None else batch.task_reward_S,
        penalty_S=torch.zeros_like(batch.reward_S) if batch.penalty_S is None else batch.penalty_S,
        is_valid_S=torch.ones_like(batch.next_S, dtype=torch.bool) if batch.is_valid_S is None else batch.is_valid_S,
        score_S=batch.score_S,
        is_won_N=batch.is_won_N,
    )


def merge_tables(tables: Sequence[StepTable]) -> StepTable:
    """The tables of all ranks as one, rank after rank. Group ids must already be those of the whole batch."""
    trajectory_S, next_S, first_step, first_trajectory = [], [], 0, 0
    for table in tables:
        trajectory_S.append(table.trajectory_S + first_trajectory)
        next_S.append(torch.where(table.next_S >= 0, table.next_S + first_step, -1))
        first_step += len(table.next_S)
        first_trajectory += len(table.group_N)
    return StepTable(
        entropy_S=torch.cat([table.entropy_S for table in tables]),
        first_entropy_S=torch.cat([table.first_entropy_S for table in tables]),
        tokens_S=torch.cat([table.tokens_S for table in tables]),
        trajectory_S=torch.cat(trajectory_S),
        next_S=torch.cat(next_S),
        reward_S=torch.cat([table.reward_S for table in tables]),
        group_N=torch.cat([table.group_N for table in tables]),
        reward_N=torch.cat([table.reward_N for table in tables]),
        anchor_S=tuple(anchor for table in tables for anchor in table.anchor_S),
        task_reward_S=torch.cat([table.task_reward_S for table in tables]),
        penalty_S=torch.cat([table.penalty_S for table in tables]),
        is_valid_S=torch.cat([table.is_valid_S for table in tables]),
        score_S=_merged([table.score_S for table in tables]),
        is_won_N=_merged([table.is_won_N for table in tables]),
    )


def _merged(parts: Sequence[Tensor | None]) -> Tensor | None:
    """None where one of them is."""
    given = [part for part in parts if part is not None]
    return torch.cat(given) if len(given) == len(parts) else None
