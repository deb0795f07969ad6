"""HGPO, GraphGPO, G2PO and turn credit against slow transcriptions of their formulas, on random batches.

A batch is a list of tasks, a task a list of `Episode`s; rows come in a random order.
"""

import random
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev

import pytest
import torch

from empg_cli.algorithms.g2po import edge_relative, visited_values
from empg_cli.algorithms.gigpo import anchor_groups
from empg_cli.algorithms.graphgpo import distance_to_success, graph_relative
from empg_cli.algorithms.hgpo import history_relative
from empg_cli.algorithms.turn_credit import turn_credit

GAMMA = 0.95


@dataclass(frozen=True)
class Turn:
    observation: str
    reward: float
    penalty: float
    score: float
    tokens: int


@dataclass(frozen=True)
class Episode:
    turns: list[Turn]
    is_won: bool


def random_tasks(rng):
    """Four observations, so that they repeat within an episode and between them, and not all lead to success."""

    def turn():
        reward, penalty = rng.choice([0.0, 0.0, 1.0, 0.5]), rng.choice([0.0, 0.0, 0.1])
        return Turn(rng.choice("abcd"), reward, penalty, rng.choice([0.0, 0.25, 1.0]), rng.randint(1, 9))

    return [
        [Episode([turn() for _ in range(rng.randint(1, 6))], rng.random() < 0.3) for _ in range(rng.randint(1, 5))]
        for _ in range(rng.randint(1, 3))
    ]


class Rows:
    """A batch of tasks as tensors, its rows shuffled."""

    def __init__(self, tasks, rng):
        places = [
            (g, i, t) for g, task in enumerate(tasks) for i, played in enumerate(task) for t in range(len(played.turns))
        ]
        rng.shuffle(places)
        self.places = places
        row = {place: number for number, place in enumerate(places)}
        self.turns = [tasks[g][i].turns[t] for g, i, t in places]
        self.next_S = torch.tensor([row.get((g, i, t + 1), -1) for g, i, t in places])
        self.group_S = torch.tensor([g for g, _, _ in places])
        self.trajectory_S = torch.tensor([100 * g + i for g, i, _ in places])
        self.is_won_S = torch.tensor([tasks[g][i].is_won for g, i, _ in places])
        self.tokens_S = torch.tensor([turn.tokens for turn in self.turns])
        self.reward_S = torch.tensor([turn.reward for turn in self.turns], dtype=torch.float64)
        self.penalty_S = torch.tensor([turn.penalty for turn in self.turns], dtype=torch.float64)
        self.score_S = torch.tensor([turn.score for turn in self.turns], dtype=torch.float64)
        self.anchor_S = anchor_groups([turn.observation for turn in self.turns], self.group_S)

    def of(self, expected):
        """What a transcription says, in the order of the rows."""
        return torch.tensor([expected[place] for place in self.places], dtype=torch.float64)


def standardised(values, scale_by_std, unbiased=False):
    """S(x): each value less the mean, over std + 1e-6; 0 for one value and for equal ones."""
    if len(values) < 2 or max(values) - min(values) < 1e-12:
        return [0.0] * len(values)
    spread = (stdev if unbiased else pstdev)(values) + 1e-6 if scale_by_std else 1.0
    return [(value - fmean(values)) / spread for value in values]


def hgpo(tasks, history, alpha, scale_by_std, unbiased):
    expected = {}
    for g, task in enumerate(tasks):
        found = defaultdict(list)  # of a step: (k, A_k)
        for k in range(1, history + 2):
            groups = defaultdict(list)
            for i, turns in enumerate(played.turns for played in task):
                for t in range(k - 1, len(turns)):
                    seen = tuple(turn.observation for turn in turns[t - k + 1 : t + 1])
                    later = sum(GAMMA ** (s - t) * turns[s].reward for s in range(t, len(turns)))
                    groups[seen].append(((g, i, t), later - turns[t].penalty))
            for members in groups.values():
                advantages = standardised([later for _, later in members], scale_by_std, unbiased)
                for (place, _), advantage in zip(members, advantages, strict=True):
                    found[place].append((k, advantage))
        for i, played in enumerate(task):
            for t in range(len(played.turns)):
                told = [((k + 1) ** alpha, advantage) for k, advantage in found[g, i, t] if abs(advantage) > 1e-9]
                total = sum(weight for weight, _ in told)
                expected[g, i, t] = sum(weight * advantage for weight, advantage in told) / total if told else 0.0
    return expected


@pytest.mark.parametrize("seed", range(100))
def test_hgpo(seed):
    rng = random.Random(seed)
    tasks = random_tasks(rng)
    rows = Rows(tasks, rng)
    history, alpha, scale_by_std = rng.randint(0, 4), rng.choice([0.0, 1.0, 2.0]), rng.random() < 0.5
    unbiased = scale_by_std and rng.random() < 0.5
    advantage_S = history_relative(
        rows.reward_S,
        rows.next_S,
        rows.anchor_S,
        history=history,
        alpha=alpha,
        gamma=GAMMA,
        scale_by_std=scale_by_std,
        unbiased=unbiased,
        penalty_S=rows.penalty_S,
    )
    expected_S = rows.of(hgpo(tasks, history, alpha, scale_by_std, unbiased))
    torch.testing.assert_close(advantage_S, expected_S, atol=1e-6, rtol=0)


def compared(worth, groups, scale_by_std, unbiased):
    """Each place's worth against those of its group; both are dicts by place."""
    members = defaultdict(list)
    for place in worth:
        members[groups[place]].append(place)
    expected = {}
    for places in members.values():
        advantages = standardised([worth[place] for place in places], scale_by_std, unbiased)
        expected |= dict(zip(places, advantages, strict=True))
    return expected


def nodes_left(tasks):
    """The node that each step left, with its task."""
    return {
        (g, i, t): (g, turn.observation)
        for g, task in enumerate(tasks)
        for i, played in enumerate(task)
        for t, turn in enumerate(played.turns)
    }


def graphgpo(tasks, decay, goal, scale_by_std, unbiased):
    worth = {}
    for g, task in enumerate(tasks):
        edges = {}  # of a step: from, to
        for i, played in enumerate(task):
            ends = [*(turn.observation for turn in played.turns[1:]), "SUCCESS" if played.is_won else f"failed {i}"]
            edges |= {(g, i, t): (played.turns[t].observation, end) for t, end in enumerate(ends)}
        distance, reached = {"SUCCESS": 0}, ["SUCCESS"]
        while reached:  # breadth first, from the end
            here = reached.pop(0)
            for there, to in edges.values():
                if to == here and there not in distance:
                    distance[there] = distance[here] + 1
                    reached.append(there)
        nowhere = max(distance.values()) + 1
        for (_, i, t), (_, to) in edges.items():
            worth[g, i, t] = goal * decay ** distance.get(to, nowhere) - task[i].turns[t].penalty
    return compared(worth, nodes_left(tasks), scale_by_std, unbiased)


@pytest.mark.parametrize("seed", range(100))
def test_graphgpo(seed):
    rng = random.Random(seed)
    tasks = random_tasks(rng)
    rows = Rows(tasks, rng)
    decay, goal, scale_by_std = rng.choice([0.1, 0.5]), rng.choice([1.0, 10.0]), rng.random() < 0.5
    unbiased = scale_by_std and rng.random() < 0.5
    advantage_S = graph_relative(
        distance_to_success(rows.anchor_S, rows.next_S, rows.is_won_S, rows.group_S),
        rows.anchor_S,
        decay=decay,
        goal=goal,
        scale_by_std=scale_by_std,
        unbiased=unbiased,
        penalty_S=rows.penalty_S,
    )
    expected_S = rows.of(graphgpo(tasks, decay, goal, scale_by_std, unbiased))
    torch.testing.assert_close(advantage_S, expected_S, atol=1e-6, rtol=0)


def g2po(tasks, scale_by_std, unbiased):
    visits = defaultdict(list)
    returns = {
        (g, i): sum(turn.reward for turn in ep.turns) for g, task in enumerate(tasks) for i, ep in enumerate(task)
    }
    nodes = nodes_left(tasks)
    for (g, i, t), node in nodes.items():
        visits[node].append(GAMMA ** (len(tasks[g][i].turns) - t) * returns[g, i])
    value = {node: fmean(seen) for node, seen in visits.items()}
    led, gain = {}, {}
    for (g, i, t), node in nodes.items():
        after = value[nodes[g, i, t + 1]] if (g, i, t + 1) in nodes else returns[g, i]
        led[g, i, t], gain[g, i, t] = after - tasks[g][i].turns[t].penalty, after - value[node]
    here = compared(led, nodes, scale_by_std, unbiased)
    task = compared(gain, {place: place[0] for place in gain}, scale_by_std, unbiased)
    return {place: here[place] + task[place] for place in here}


@pytest.mark.parametrize("seed", range(100))
def test_g2po(seed):
    rng = random.Random(seed)
    tasks = random_tasks(rng)
    rows = Rows(tasks, rng)
    scale_by_std = rng.random() < 0.5
    unbiased = scale_by_std and rng.random() < 0.5
    return_S = torch.tensor([sum(turn.reward for turn in tasks[g][i].turns) for g, i, _ in rows.places]).double()
    advantage_S = edge_relative(
        visited_values(return_S, rows.next_S, rows.anchor_S, gamma=GAMMA),
        return_S,
        rows.next_S,
        rows.anchor_S,
        rows.group_S,
        scale_by_std=scale_by_std,
        unbiased=unbiased,
        penalty_S=rows.penalty_S,
    )
    torch.testing.assert_close(advantage_S, rows.of(g2po(tasks, scale_by_std, unbiased)), atol=1e-6, rtol=0)


def turns(tasks, gamma):
    expected = {}
    for g, task in enumerate(tasks):
        for i, played in enumerate(task):
            credit = [0.0] * len(played.turns)
            for made in range(1, len(credit)):
                change = played.turns[made].score - played.turns[made - 1].score
                shares = [gamma ** (made - t) for t in range(made + 1)]
                for t, share in enumerate(shares):
                    credit[t] += change * share / sum(shares)
            tokens = [turn.tokens for turn in played.turns]
            mean = sum(c * n for c, n in zip(credit, tokens, strict=True)) / sum(tokens)
            expected |= {(g, i, t): value - mean for t, value in enumerate(credit)}
    return expected


@pytest.mark.parametrize("seed", range(100))
def test_turn_credit(seed):
    rng = random.Random(seed)
    tasks = random_tasks(rng)
    rows = Rows(tasks, rng)
    gamma = rng.choice([0.0, 0.5, 0.9, 1.0])
    credit_S = turn_credit(rows.score_S, rows.next_S, rows.trajectory_S, rows.tokens_S, gamma=gamma)
    torch.testing.assert_close(credit_S, rows.of(turns(tasks, gamma)), atol=1e-6, rtol=0)
