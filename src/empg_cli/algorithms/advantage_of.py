"""Where settings choose the advantage of every step: rewards of trajectories and steps in, one number per step out."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from empg_cli.algorithms.advantages import group_relative, group_relative_over_steps, leave_one_out
from empg_cli.algorithms.describe import Metrics, mean
from empg_cli.algorithms.g2po import edge_relative, visited_values
from empg_cli.algorithms.gigpo import anchor_groups, combine, step_relative
from empg_cli.algorithms.graphgpo import distance_to_success, graph_relative
from empg_cli.algorithms.hgpo import history_relative
from empg_cli.algorithms.reinforce import reinforce_plus_plus, reinforce_plus_plus_baseline, whiten
from empg_cli.algorithms.scores import relative_to_others, relative_to_trajectories, step_scores
from empg_cli.algorithms.table import StepTable
from empg_cli.algorithms.turn_credit import progress, turn_credit
from empg_cli.config import algo as schema


def advantage_of(settings: schema.Advantage, reward_N: Tensor, table: StepTable) -> tuple[Tensor, Metrics]:
    """float [S], before EMPG, and what to log about it.

    Args:
        reward_N: return of each trajectory, the overlong penalty taken off.
    """
    match settings:
        case schema.GroupRelative():
            return _group_relative(settings, reward_N, table), {}
        case schema.LeaveOneOut(scale_by_std=scale_by_std, unbiased_std=unbiased):
            if settings.penalty == "step":
                score_S = _score(reward_N, table)
                group_S, row_S = table.group_of_step, table.trajectory_S
                return relative_to_others(score_S, group_S, row_S, scale_by_std=scale_by_std, unbiased=unbiased), {}
            advantage_N = leave_one_out(reward_N, table.group_N, scale_by_std=scale_by_std, unbiased=unbiased)
            return advantage_N[table.trajectory_S], {}
        case schema.ReinforcePlusPlus(statistics=statistics, gamma=gamma):
            reward_S, penalty_S = _step_rewards(settings, reward_N, table)
            weight_S = _row_weight(statistics, table)
            return reinforce_plus_plus(reward_S, table.next_S, weight_S, gamma=gamma, penalty_S=penalty_S), {}
        case schema.ReinforcePlusPlusBaseline(statistics=statistics):
            weight_S = _row_weight(statistics, table)
            if settings.penalty == "step":
                score_S = _score(reward_N, table)
                group_S, row_S = table.group_of_step, table.trajectory_S
                return whiten(relative_to_trajectories(score_S, group_S, row_S, scale_by_std=False), weight_S), {}
            return reinforce_plus_plus_baseline(reward_N, table.group_N, table.trajectory_S, weight_S), {}
        case schema.Gigpo():
            return _gigpo(settings, reward_N, table)
        case schema.Hgpo():
            return _hgpo(settings, reward_N, table)
        case schema.GraphGpo():
            return _graphgpo(settings, reward_N, table)
        case schema.G2po():
            return _g2po(settings, reward_N, table)
        case schema.TurnCredit():
            return _turn_credit(settings, reward_N, table)
        case _:
            assert_never(settings)


def _group_relative(
    settings: schema.GroupRelative | schema.EpisodeAndStep, reward_N: Tensor, table: StepTable
) -> Tensor:
    scale_by_std, unbiased = settings.scale_by_std, settings.unbiased_std
    trajectory_S, group_S = table.trajectory_S, table.group_of_step
    match settings.statistics, settings.penalty:
        case "trajectory", "episode":
            advantage_N = group_relative(reward_N, table.group_N, scale_by_std=scale_by_std, unbiased=unbiased)
            return advantage_N[trajectory_S]
        case "trajectory", "step":
            score_S = _score(reward_N, table)
            return relative_to_trajectories(
                score_S, group_S, trajectory_S, scale_by_std=scale_by_std, unbiased=unbiased
            )
        case "step", penalty:
            score_S = reward_N[trajectory_S] if penalty == "episode" else _score(reward_N, table)
            return group_relative_over_steps(score_S, group_S, scale_by_std=scale_by_std, unbiased=unbiased)
        case _:
            raise AssertionError("the schema knows no other")


def _gigpo(settings: schema.Gigpo, reward_N: Tensor, table: StepTable) -> tuple[Tensor, Metrics]:
    anchor_S = anchor_groups(table.anchor_S, table.group_of_step, similarity=settings.similarity)
    reward_S, penalty_S = _step_rewards(settings, reward_N, table)
    step_S = step_relative(
        reward_S,
        table.next_S,
        anchor_S,
        gamma=settings.gamma,
        scale_by_std=settings.scale_by_std,
        unbiased=settings.unbiased_std,
        penalty_S=penalty_S,
    )
    advantage_S = combine(_group_relative(settings, reward_N, table), step_S, omega=settings.omega)
    return advantage_S, _anchor_metrics(anchor_S)


def _hgpo(settings: schema.Hgpo, reward_N: Tensor, table: StepTable) -> tuple[Tensor, Metrics]:
    anchor_S = anchor_groups(table.anchor_S, table.group_of_step)
    reward_S, penalty_S = _step_rewards(settings, reward_N, table)
    advantage_S = history_relative(
        reward_S,
        table.next_S,
        anchor_S,
        history=settings.history,
        alpha=settings.alpha,
        gamma=settings.gamma,
        scale_by_std=settings.scale_by_std,
        unbiased=settings.unbiased_std,
        penalty_S=penalty_S,
    )
    return advantage_S, _anchor_metrics(anchor_S)


def _graphgpo(settings: schema.GraphGpo, reward_N: Tensor, table: StepTable) -> tuple[Tensor, Metrics]:
    is_won_N = _given(table.is_won_N, "is_won_N", settings.estimator)
    anchor_S, group_S = anchor_groups(table.anchor_S, table.group_of_step), table.group_of_step
    step_S = graph_relative(
        distance_to_success(anchor_S, table.next_S, is_won_N[table.trajectory_S], group_S),
        anchor_S,
        decay=settings.decay,
        goal=settings.goal,
        scale_by_std=settings.scale_by_std,
        unbiased=settings.unbiased_std,
        penalty_S=table.penalty_S,
    )
    advantage_S = combine(_group_relative(settings, reward_N, table), step_S, omega=settings.omega)
    return advantage_S, _anchor_metrics(anchor_S)


def _g2po(settings: schema.G2po, reward_N: Tensor, table: StepTable) -> tuple[Tensor, Metrics]:
    anchor_S, group_S = anchor_groups(table.anchor_S, table.group_of_step), table.group_of_step
    return_S = _task_return(reward_N, table)[table.trajectory_S]
    step_S = edge_relative(
        visited_values(return_S, table.next_S, anchor_S, gamma=settings.gamma),
        return_S,
        table.next_S,
        anchor_S,
        group_S,
        scale_by_std=settings.scale_by_std,
        unbiased=settings.unbiased_std,
        penalty_S=table.penalty_S,
    )
    advantage_S = combine(_group_relative(settings, reward_N, table), step_S, omega=settings.omega)
    return advantage_S, _anchor_metrics(anchor_S)


def _turn_credit(settings: schema.TurnCredit, reward_N: Tensor, table: StepTable) -> tuple[Tensor, Metrics]:
    score_S = _given(table.score_S, "score_S", settings.estimator)
    step_S = turn_credit(score_S, table.next_S, table.trajectory_S, table.tokens_S, gamma=settings.gamma)
    advantage_S = combine(_group_relative(settings, reward_N, table), step_S, omega=settings.omega)
    has_moved_S = progress(score_S, table.next_S) != 0
    return advantage_S, {"turn_credit/progress_frac": mean(has_moved_S.float())}


def _given(value: Tensor | None, name: str, estimator: str) -> Tensor:
    if value is None:
        raise ValueError(f"algo.advantage.estimator={estimator} reads {name}, and the batch has none: set Batch.{name}")
    return value


def _anchor_metrics(anchor_S: Tensor) -> Metrics:
    size_S = torch.bincount(anchor_S)[anchor_S].float()
    return {"gigpo/anchor_size/mean": mean(size_S), "gigpo/repeated_frac": mean((size_S > 1).float())}


def _score(reward_N: Tensor, table: StepTable) -> Tensor:
    """Of each step under penalty=step; the overlong penalty is the episode's, so every step has it."""
    return step_scores(_task_return(reward_N, table), table.penalty_S, table.trajectory_S)


def _task_return(reward_N: Tensor, table: StepTable) -> Tensor:
    """float [N]: returns without what invalid actions cost, the overlong penalty taken off."""
    return table.task_reward_of_trajectory + (reward_N - table.reward_N)


def _step_rewards(
    settings: schema.ReinforcePlusPlus | schema.Gigpo | schema.Hgpo, reward_N: Tensor, table: StepTable
) -> tuple[Tensor, Tensor | None]:
    """Step rewards that are summed over an episode's later steps, and penalties that are not (penalty=step).

    The overlong penalty is earned by the last step.
    """
    overlong_N = reward_N - table.reward_N
    at_the_end_S = torch.where(table.next_S < 0, overlong_N[table.trajectory_S], 0.0)
    if settings.penalty == "step":
        return table.task_reward_S + at_the_end_S, table.penalty_S
    return table.reward_S + at_the_end_S, None


def _row_weight(statistics: str, table: StepTable) -> Tensor:
    return table.tokens_S.float() if statistics == "token" else torch.ones(len(table.tokens_S))
