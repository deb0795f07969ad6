"""Axes of charts: their range, and round numbers with no more digits than needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Axis:
    low: float
    high: float
    marks: tuple[tuple[float, str], ...]
    """Where its ticks are, and the text of each."""
    name: str = ""


ROUNDING = 1e-9
"""Of the larger end: ends that are nearer are one number."""


def number_axis(low: float, high: float, name: str = "", *, count: int = 4, is_share: bool = False) -> Axis:
    values = ticks(low, high, count) if high - low > ROUNDING * max(abs(low), abs(high)) else [low]
    if is_share:  # the room around a curve at 0 or 1 has no share in it
        values = [value for value in values if 0 <= value <= 1]
    return Axis(low, high, tuple(zip(values, tick_labels(values, is_share=is_share), strict=True)), name)


def update_axis(updates: Sequence[int]) -> Axis:
    """From the first to the last of them, in whole numbers."""
    low, high = min(updates), max(updates)
    values = [value for value in ticks(low, high, 6) if value == int(value)] if low < high else [low]
    return Axis(low, high, tuple((value, f"{value:g}") for value in values), "update")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers inside low..high, about `count` of them: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_labels(values: Iterable[float], *, is_share: bool = False) -> list[str]:
    """With the decimals that tell them apart, no more; a share in percent."""
    scaled = [value * 100 if is_share else value for value in values]
    if max(map(abs, scaled), default=0.0) < 1e-3:
        return [f"{value:.2g}" for value in scaled]
    gaps = [abs(after - before) for before, after in pairwise(scaled)]
    alone = 0 if all(value == int(value) for value in scaled) else 2
    decimals = max(0, -math.floor(math.log10(min(gaps)) + 1e-9)) if gaps else alone
    return [f"{value:.{decimals}f}{' %' if is_share else ''}" for value in scaled]
