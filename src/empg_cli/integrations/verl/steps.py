"""verl's rows as our steps, and the credit of steps as verl's advantages.

A row is one sequence that verl trains: a step (window), or a whole episode (transcript). Its key is
`{uid}_{session}_{index}`: the uid is that of a group, a session is an episode, the index orders its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from empg_cli.algorithms.table import StepTable


class StepFacts(TypedDict):
    """What an agent loop knows of a step beside its tokens."""

    reward: float
    """The environment's, less `penalty`."""
    penalty: float
    observation: str
    is_valid: bool
    """Well formed and accepted by the environment."""


class RowsError(ValueError):
    """verl's rows are not what this needs; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    mask_T: Tensor
    """True on sampled tokens, of this row's response."""
    entropy_T: Tensor
    """Nats."""
    facts: Sequence[StepFacts] | None = None
    """Of each of its steps; None: an agent loop of others, which gives `reward` alone."""
    reward: float = 0.0
    """Of the whole episode, on each of its rows; read where there are no facts."""
    is_padding: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a batch: episode by episode, in the order they were taken."""

    table: StepTable
    spans: Sequence[tuple[int, int, int]]
    """For each step its row, and the beginning and end of its tokens there."""
    num_rows: int

    def advantages(self, credit_S: Tensor, num_tokens: int) -> Tensor:
        """float [rows, num_tokens]: the credit of its step on each sampled token, 0 elsewhere."""
        advantage_BT = torch.zeros(self.num_rows, num_tokens, dtype=credit_S.dtype)
        for (row, begin, end), credit in zip(self.spans, credit_S, strict=True):
            advantage_BT[row, begin:end] = credit
        return advantage_BT


def steps_of(rows: Sequence[Row]) -> Steps:
    """
    Rows of padding have no steps, nor has an episode whose group has no other one left (sessions that failed): it has
    nothing to be compared with. Both get the advantage 0.

    Raises:
        RowsError: a key has another form, or the facts are not those of the row's tokens.
    """
    played = _played(rows)
    group_of = {uid: group for group, uid in enumerate(dict.fromkeys(uid for uid, _ in played))}
    spans: list[tuple[int, int, int]] = []
    facts: list[StepFacts] = []
    trajectory: list[int] = []
    for episode, numbers in enumerate(played.values()):
        for number in numbers:
            is_last = number == numbers[-1]
            begun = runs(rows[number].mask_T)
            spans += [(number, begin, end) for begin, end in begun]
            facts += _facts(rows[number], len(begun), is_last=is_last)
            trajectory += [episode] * len(begun)
    is_noted = all(rows[number].facts is not None for numbers in played.values() for number in numbers)
    entropies = [rows[row].entropy_T[begin:end].float().mean() for row, begin, end in spans]
    rewards = [0.0] * len(played)
    for episode, fact in zip(trajectory, facts, strict=True):
        rewards[episode] += fact["reward"]
    follows = [a == b for a, b in zip(trajectory, [*trajectory[1:], -1], strict=True)] if trajectory else []
    table = StepTable(
        entropy_S=torch.stack(entropies) if entropies else torch.zeros(0),
        first_entropy_S=torch.stack([rows[row].entropy_T[begin].float() for row, begin, _ in spans])
        if spans
        else torch.zeros(0),
        tokens_S=torch.tensor([end - begin for _, begin, end in spans], dtype=torch.long),
        trajectory_S=torch.tensor(trajectory, dtype=torch.long),
        next_S=torch.tensor([s + 1 if goes_on else -1 for s, goes_on in enumerate(follows)], dtype=torch.long),
        reward_S=torch.tensor([fact["reward"] for fact in facts]),
        group_N=torch.tensor([group_of[uid] for uid, _ in played], dtype=torch.long),
        reward_N=torch.tensor(rewards),
        anchor_S=tuple(fact["observation"] for fact in facts) if is_noted else (),  # who needs them asks for them
        task_reward_S=torch.tensor([fact["reward"] + fact["penalty"] for fact in facts]),
        penalty_S=torch.tensor([fact["penalty"] for fact in facts]),
        is_valid_S=torch.tensor([fact["is_valid"] for fact in facts], dtype=torch.bool),
    )
    return Steps(table, spans, len(rows))


def _played(rows: Sequence[Row]) -> dict[tuple[str, str], list[int]]:
    """Uid and session of each episode that has another one in its group, with its rows in their order."""
    episodes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for number, row in enumerate(rows):
        if not row.is_padding:
            uid, session, index = _parts(row.key)
            episodes.setdefault((uid, session), []).append((index, number))
    members = Counter(uid for uid, _ in episodes)
    return {name: [number for _, number in sorted(of)] for name, of in episodes.items() if members[name[0]] > 1}


def runs(mask_T: Tensor) -> list[tuple[int, int]]:
    """Beginning and end of each stretch of sampled tokens: between two steps of a row stands what was observed."""
    edge_T = torch.diff(mask_T.bool().int(), prepend=torch.zeros(1), append=torch.zeros(1))
    begins, ends = (edge_T == 1).nonzero()[:, 0].tolist(), (edge_T == -1).nonzero()[:, 0].tolist()
    return list(zip(begins, ends, strict=True))


def _parts(key: str) -> tuple[str, str, int]:
    parts = key.rsplit("_", 2)
    if len(parts) != 3 or not parts[2].isdecimal():
        raise RowsError(f"a row of verl is named {key!r}, not UID_SESSION_INDEX: this verl is none that empg knows")
    return parts[0], parts[1], int(parts[2])


def _facts(row: Row, steps: int, *, is_last: bool) -> Sequence[StepFacts]:
    """Of a row's steps. Where nobody has noted them, the episode's reward is that of its last step."""
    if row.facts is None:
        plain: list[StepFacts] = [
            {"reward": 0.0, "penalty": 0.0, "observation": "", "is_valid": True} for _ in range(steps)
        ]
        if is_last and plain:
            plain[-1]["reward"] = row.reward
        return plain
    if len(row.facts) != steps:
        raise RowsError(
            f"row {row.key} has {steps} stretches of sampled tokens, and {len(row.facts)} steps were noted of it: "
            "something between the agent loop and the trainer changes response_mask"
        )
    return row.facts


def reward_per_row(steps: Steps) -> Mapping[int, float]:
    """For each row that has steps: the reward of its episode."""
    return {
        row: float(steps.table.reward_N[episode])
        for (row, _, _), episode in zip(steps.spans, steps.table.trajectory_S.tolist(), strict=True)
    }
