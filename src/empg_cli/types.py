"""The data that flows through a run: tasks, steps, trajectories, batches.

Dimension suffixes everywhere: `N` trajectories, `S` steps, `T` tokens, `G` groups, `V` vocabulary, `B` rows.
One word per thing: task (what to solve), trajectory = episode (one attempt), step = turn (one model call and the
environment's reply), group (the attempts at one task), reward (what trains), score (the benchmark's own number),
success (the benchmark's own yes/no).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int], None]
"""Called with how much is done, and how much there is in all."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to solve. `data` belongs to the benchmark that made it; nobody else looks inside."""

    task_id: str
    kind: str
    """Task type by the benchmark's own name; success is reported per kind."""
    split: str
    data: Any = field(default=None, repr=False, compare=False)


class Status(StrEnum):
    """Why a trajectory ended."""

    SUCCESS = "success"
    """The benchmark says the task is solved."""
    FAILED = "failed"
    """The environment ended the episode without success."""
    STEP_LIMIT = "step_limit"
    """`benchmark.max_steps` was reached."""
    CONTEXT_OVERFLOW = "context_overflow"
    """The next prompt would not fit into `rollout.max_context_tokens`."""
    ENV_ERROR = "env_error"
    """The environment could not go on, through no fault of the agent (it raised, or an answer got no verdict); the
    reason is in `Trajectory.error`. Such an episode is never scored: see `Trajectory.is_scored`."""


@dataclass(slots=True)
class Step:
    """One model call and the environment's reply. Token ids are kept as sampled, never decoded and encoded again."""

    prompt_ids: list[int]
    """`window` context: the whole prompt of this step. `transcript` context: only the tokens that are new since the
    previous response (the first step holds the opening prompt)."""
    response_ids: list[int]
    """Sampled tokens, the end-of-turn token included. The only tokens that train."""
    logprobs: list[float]
    """Log-probability of each response token under the policy that sampled it, at the sampling temperature."""
    entropies: list[float]
    """Shannon entropy (nats, full vocabulary) of the distribution each response token was drawn from."""
    action: str = ""
    """What was sent to the environment."""
    observation: str = ""
    """What the environment had shown before this step."""
    well_formed: bool = True
    """The response had the form that the prompt asks for."""
    was_cut: bool = False
    """The response reached `rollout.max_new_tokens` without ending."""
    admissible: bool = True
    """The environment accepted the action."""
    reward: float = 0.0
    """The environment's reward less `penalty`."""
    penalty: float = 0.0
    """What an invalid action cost."""
    score: float = 0.0
    """The benchmark's own number after this step."""
    policy_version: int = 0
    """Updates that the policy had seen when it sampled the response."""
    texts: tuple[str, str] | None = None
    """Prompt and response of a model that takes messages: it shows no ids, so there are none of it."""


@dataclass(slots=True)
class Trajectory:
    task: Task
    group: int
    """Members of one group share it; unique within an update, given when the rollout begins and never rewritten."""
    index: int
    """0 .. group_size-1 within the group."""
    steps: list[Step] = field(default_factory=list)
    status: Status = Status.STEP_LIMIT
    score: float = 0.0
    success: bool = False
    error: str | None = None
    info: dict[str, float] = field(default_factory=dict)
    """The numbers in the environment's `info` at the last step that it answered."""
    has_no_env: bool = False
    """Nobody can play the task: making or resetting its environment raised (`ENV_ERROR`)."""
    tokens_needed: int = 0
    """Context tokens that the step which did not fit asked for, a full response included (`CONTEXT_OVERFLOW`)."""

    @property
    def is_scored(self) -> bool:
        """False: score, success and reward mean nothing, so the episode stays out of every statistic of them."""
        return self.status is not Status.ENV_ERROR

    @property
    def reward(self) -> float:
        """Undiscounted return, penalties included: what trains."""
        return sum(step.reward for step in self.steps)

    @property
    def task_reward(self) -> float:
        """Undiscounted return without penalties: what dynamic sampling compares."""
        return sum(step.reward + step.penalty for step in self.steps)

    @property
    def num_response_tokens(self) -> int:
        return sum(len(step.response_ids) for step in self.steps)


@dataclass(slots=True)
class Batch:
    """The trajectories of one update as tensors; algorithms see only this, never which context made it.

    Rows are what the model reads: one per step (`window`) or one per trajectory (`transcript`).
    Step tensors are padded to the longest response, `T` columns.
    """

    row_ids: list[Tensor]
    """B tensors of token ids, ragged."""
    step_row_S: Tensor
    """long [S]: the row that holds step s."""
    step_start_S: Tensor
    """long [S]: column, in its row, of the step's first response token (always >= 1)."""
    mask_ST: Tensor
    """bool [S, T]: True on sampled tokens."""
    token_ST: Tensor
    """long [S, T]: the sampled token ids, 0 where masked."""
    old_logprob_ST: Tensor
    """float [S, T]: log-probs under the policy that sampled."""
    entropy_ST: Tensor
    """float [S, T]: token entropies of that policy."""
    trajectory_S: Tensor
    """long [S]: trajectory of step s, 0..N-1."""
    next_S: Tensor
    """long [S]: the following step of the same trajectory, -1 if none."""
    group_N: Tensor
    """long [N]"""
    reward_N: Tensor
    """float [N]: return of each trajectory."""
    reward_S: Tensor
    """float [S]: reward of each step, penalties taken off."""
    anchor_S: list[str] = field(default_factory=list)
    """The observation each step answered; GiGPO groups steps by it."""
    task_reward_S: Tensor | None = None
    """float [S]: reward of each step before penalties; None when nothing was penalised (`reward_S` then)."""
    penalty_S: Tensor | None = None
    """float [S]: what an invalid action cost the step; None for nothing."""
    is_valid_S: Tensor | None = None
    """bool [S]: the response was well formed and the environment accepted the action; None where all were."""
    score_S: Tensor | None = None
    """float [S]: the benchmark's own number after each step; read by turn credit."""
    is_won_N: Tensor | None = None
    """bool [N]: the benchmark says the task was solved; read by GraphGPO."""
    ref_logprob_ST: Tensor | None = None
    """float [S, T]: log-probs under the reference policy; None when no KL term is asked for."""
    rollout_logprob_ST: Tensor | None = None
    """float [S, T]: what the engine reported while sampling, when `old_logprob_ST` was computed again; else None."""
    credit_S: Tensor | None = None
    """float [S]: the advantage that the loss uses."""

    @property
    def num_steps(self) -> int:
        return len(self.trajectory_S)

    @property
    def num_trajectories(self) -> int:
        return len(self.group_N)
