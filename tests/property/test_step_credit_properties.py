"""What holds for every form of step credit, whatever was played."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from empg_cli.algorithms.advantages import group_relative
from empg_cli.algorithms.g2po import edge_relative, visited_values
from empg_cli.algorithms.graphgpo import distance_to_success, graph_relative
from empg_cli.algorithms.hgpo import history_groups, history_relative
from empg_cli.algorithms.returns import returns_to_go
from empg_cli.algorithms.turn_credit import progress, spread_backwards, turn_credit

Played = tuple[Tensor, Tensor, Tensor, Tensor]


@st.composite
def played(draw: st.DrawFn) -> Played:
    """Anchors, next steps, rewards and trajectories of one to four attempts at one task, rows in any order."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    number = sum(lengths)
    order = torch.tensor(draw(st.permutations(range(number))))
    trajectory_S = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    next_S = torch.arange(1, number + 1)
    next_S[torch.tensor(lengths).cumsum(0) - 1] = -1
    anchor_S = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=number, max_size=number)))
    rewards = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=number, max_size=number))
    return shuffled((anchor_S, next_S, torch.tensor(rewards), trajectory_S), order)


def shuffled(batch: Played, order: Tensor) -> Played:
    """Row r of the result is row order[r]."""
    anchor_S, next_S, reward_S, trajectory_S = (part[order] for part in batch)
    place = torch.argsort(order)
    return anchor_S, torch.where(next_S >= 0, place[next_S.clamp_min(0)], -1), reward_S, trajectory_S


@given(played(), st.integers(0, 3), st.sampled_from([0.0, 1.0, 3.0]))
@settings(deadline=None)
def test_hgpo_lies_between_the_comparisons_that_it_averages(batch: Played, history: int, alpha: float) -> None:
    anchor_S, next_S, reward_S, _ = batch
    advantage_S = history_relative(reward_S, next_S, anchor_S, history=history, alpha=alpha)
    return_S = returns_to_go(reward_S.double(), next_S, 0.95)
    parts = []
    for level_S in history_groups(anchor_S, next_S, history):
        alone_S = torch.where(level_S < 0, -1 - torch.arange(len(level_S)), level_S)
        parts.append(group_relative(return_S, alone_S))
    compared = torch.stack(parts)
    assert (advantage_S <= compared.max(0).values.clamp_min(0) + 1e-6).all()
    assert (advantage_S >= compared.min(0).values.clamp_max(0) - 1e-6).all()


@given(played(), st.integers(0, 3))
@settings(deadline=None)
def test_more_history_makes_finer_groups(batch: Played, history: int) -> None:
    anchor_S, next_S, _, _ = batch
    levels = history_groups(anchor_S, next_S, history)
    assert len(levels) == history + 1
    for coarse_S, fine_S in pairwise(levels):
        together = (fine_S[:, None] == fine_S) & (fine_S >= 0)
        assert (coarse_S[:, None] == coarse_S)[together].all()


@given(played(), st.integers(0, 1000), st.integers(0, 3))
@settings(deadline=None)
def test_hgpo_does_not_depend_on_the_order_of_rows(batch: Played, seed: int, history: int) -> None:
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(seed))
    anchor_S, next_S, reward_S, _ = batch
    here_S = history_relative(reward_S, next_S, anchor_S, history=history)
    anchor_S, next_S, reward_S, _ = shuffled(batch, order)
    torch.testing.assert_close(history_relative(reward_S, next_S, anchor_S, history=history), here_S[order])


def distances(batch: Played, won: int) -> Tensor:
    """To success, where the trajectory with this number alone has won."""
    anchor_S, next_S, _, trajectory_S = batch
    return distance_to_success(anchor_S, next_S, trajectory_S == won, torch.zeros_like(anchor_S))


@given(played(), st.integers(0, 4))
@settings(deadline=None)
def test_a_step_leads_at_most_one_step_nearer_than_the_best_from_where_it_was(batch: Played, won: int) -> None:
    anchor_S, next_S, _, trajectory_S = batch
    distance_S = distances(batch, won)
    nearest_V = torch.full((3,), torch.inf, dtype=torch.double).scatter_reduce(0, anchor_S, distance_S, "amin")
    followed = next_S >= 0
    # what is left from the observation that a step led to is one more than what its best step leaves, or unknown
    unknown = distance_S.max()
    best_S = (nearest_V[anchor_S[next_S.clamp_min(0)]] + 1).clamp_max(unknown)
    assert distance_S[followed].equal(best_S[followed])
    assert (distance_S[~followed & (trajectory_S == won)] == 0).all()
    # along a solved episode no step leads further away than the rest of it is long
    left_S = returns_to_go(torch.ones(len(next_S), dtype=torch.double), next_S) - 1
    assert (distance_S <= left_S)[trajectory_S == won].all()


@given(played(), st.integers(0, 1000), st.integers(0, 4))
@settings(deadline=None)
def test_graphgpo_does_not_depend_on_the_order_of_rows(batch: Played, seed: int, won: int) -> None:
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(seed))
    nothing_S = torch.zeros(len(order))
    here_S = graph_relative(distances(batch, won), batch[0], penalty_S=nothing_S)
    there = shuffled(batch, order)
    torch.testing.assert_close(graph_relative(distances(there, won), there[0], penalty_S=nothing_S), here_S[order])


def returns_of(batch: Played) -> Tensor:
    _, _, reward_S, trajectory_S = batch
    return torch.zeros(4).index_add_(0, trajectory_S, reward_S)[trajectory_S]


@given(played(), st.sampled_from([0.5, 0.95, 1.0]))
@settings(deadline=None)
def test_values_lie_between_what_visits_brought(batch: Played, gamma: float) -> None:
    anchor_S, next_S, _, _ = batch
    return_S = returns_of(batch)
    value_S = visited_values(return_S, next_S, anchor_S, gamma=gamma)
    for anchor in anchor_S.unique():
        here = anchor_S == anchor
        assert value_S[here].unique().numel() == 1
        assert value_S[here].max() <= gamma * return_S[here].max() + 1e-6
        assert value_S.min() >= 0


@given(played(), st.integers(0, 1000), st.booleans())
@settings(deadline=None)
def test_g2po_sums_to_zero_and_does_not_depend_on_the_order_of_rows(batch: Played, seed: int, scale: bool) -> None:
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(seed))
    advantages = []
    for one in (batch, shuffled(batch, order)):
        anchor_S, next_S, _, _ = one
        return_S, nothing_S = returns_of(one), torch.zeros(len(order))
        value_S = visited_values(return_S, next_S, anchor_S)
        group_S = torch.zeros_like(anchor_S)
        step_S = edge_relative(value_S, return_S, next_S, anchor_S, group_S, scale_by_std=scale, penalty_S=nothing_S)
        torch.testing.assert_close(step_S.sum(), torch.tensor(0.0), atol=1e-4, rtol=0)
        advantages.append(step_S)
    torch.testing.assert_close(advantages[1], advantages[0][order], atol=1e-5, rtol=0)


@given(played(), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(0, 1000))
@settings(deadline=None)
def test_turn_credit_shares_each_progress_out_once_and_adds_nothing(batch: Played, gamma: float, seed: int) -> None:
    _, next_S, score_S, trajectory_S = batch
    generator = torch.Generator().manual_seed(seed)
    tokens_S = torch.randint(1, 9, (len(next_S),), generator=generator)
    credit_S = spread_backwards(progress(score_S, next_S), next_S, gamma=gamma)
    shifted_S = turn_credit(score_S, next_S, trajectory_S, tokens_S, gamma=gamma)
    for number in trajectory_S.unique():
        rows = trajectory_S == number
        first, last = rows.clone(), rows & (next_S < 0)
        first[next_S[next_S >= 0]] = False
        # from the score after the first step to that after the last
        torch.testing.assert_close(credit_S[rows].sum(), (score_S[last] - score_S[first]).sum(), atol=1e-5, rtol=0)
        assert abs((shifted_S * tokens_S)[rows].sum().item()) < 1e-4


@given(played(), st.integers(0, 1000))
@settings(deadline=None)
def test_turn_credit_does_not_depend_on_the_order_of_rows(batch: Played, seed: int) -> None:
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(seed))
    tokens_S = torch.arange(1, len(order) + 1)
    here_S = turn_credit(batch[2], batch[1], batch[3], tokens_S, gamma=0.9)
    _, next_S, score_S, trajectory_S = shuffled(batch, order)
    there_S = turn_credit(score_S, next_S, trajectory_S, tokens_S[order], gamma=0.9)
    torch.testing.assert_close(there_S, here_S[order], atol=1e-6, rtol=0)
