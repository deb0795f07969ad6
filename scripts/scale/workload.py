"""What an update plays and reads: episodes of random length, in groups, drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long episodes are. Log-normal spreads leave the means as they are."""

    turns: int = 50
    answer: int = 150
    """Mean tokens of an answer."""
    turn_spread: float = 0.33
    """Sigma of the answers within an episode: the longest of 128 is 2.2 times the mean one."""
    episode_spread: float = 0.11
    """Sigma of whole episodes: the longest of 128 takes 1.35 times the mean one."""
    early: bool = False
    """Episodes may end early: each task has its own rate of success, uniform in 0..1, and a solved episode ends at a
    uniform turn."""
    fewest: int = 5
    """Turns of a solved episode."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an answer reads."""

    append_only: bool
    opening: int
    observation: int
    window: int
    cached: int
    """Tokens at the head of each window that the engine holds already."""


TRANSCRIPT = Context(append_only=True, opening=800, observation=150, window=0, cached=0)
WINDOW = Context(append_only=False, opening=0, observation=0, window=2000, cached=400)


@dataclass(slots=True)
class Episode:
    number: int
    group: Group
    answers: Sequence[int]
    """Tokens of each turn."""
    turn: int = 0
    context: int = 0
    """Tokens that its current answer sees."""
    cached: int = 0
    """Of these, keys and values in the engine."""
    decoded: int = 0
    engine: int | None = None

    @property
    def is_over(self) -> bool:
        return self.turn >= len(self.answers)


@dataclass(slots=True)
class Group:
    number: int
    version: int
    """Of the weights, when it began."""
    episodes: list[Episode] = field(default_factory=list)
    open: int = 0
    is_dropped: bool = False


def draw_group(lengths: Lengths, size: int, *, number: int, version: int, seed: int) -> Group:
    """The same for the same number and seed, whenever and wherever it is played."""
    rng = np.random.default_rng((seed, number))
    group = Group(number, version, open=size)
    rate = rng.random() if lengths.early else 0.0
    for member in range(size):
        solved = lengths.early and rng.random() < rate
        turns = int(rng.integers(min(lengths.fewest, lengths.turns), lengths.turns + 1)) if solved else lengths.turns
        factor = _log_normal(rng, lengths.episode_spread, 1)[0]
        drawn = lengths.answer * factor * _log_normal(rng, lengths.turn_spread, turns)
        answers = [max(1, round(float(tokens))) for tokens in drawn]
        group.episodes.append(Episode(number * size + member, group, answers))
    return group


def _log_normal(rng: np.random.Generator, sigma: float, count: int) -> np.ndarray:
    drawn: np.ndarray = rng.lognormal(-(sigma**2) / 2, sigma, count)
    return drawn


def longest_context(lengths: Lengths, context: Context) -> int:
    """Of a mean episode of full length, in tokens: what an engine sets room aside for."""
    if not context.append_only:
        return context.window + lengths.answer
    return context.opening + lengths.turns * lengths.answer + (lengths.turns - 1) * context.observation


def next_prompt(episode: Episode, context: Context) -> int:
    """Tokens of the prompt of the turn that comes."""
    if not context.append_only:
        return context.window
    return context.opening if episode.turn == 0 else episode.context + context.observation


def rows_of(episode: Episode, context: Context) -> list[tuple[int, int]]:
    """(tokens, sampled tokens) of each row that training reads."""
    if not context.append_only:
        return [(context.window + tokens, tokens) for tokens in episode.answers]
    sampled = sum(episode.answers)
    return [(context.opening + sampled + (len(episode.answers) - 1) * context.observation, sampled)]


def tail_factor(values: Sequence[float]) -> float:
    """Longest over mean."""
    return max(values) / (math.fsum(values) / len(values))
