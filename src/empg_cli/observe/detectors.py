"""Signs of trouble in the series of one metric, oldest value first. Each looks at the newest value."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

REFERENCE = 20
"""Updates whose median is the reference of a spike."""
MIN_REFERENCE = 3
WINDOW = 5
"""Updates that are averaged where single ones are too noisy: a batch of 64 to 128 episodes moves by 0.05 by chance."""
MIN_DROP = 0.1
"""A smaller fall of the success rate is noise."""


class Alarm(NamedTuple):
    value: float
    limit: float
    """What the value has crossed."""


def spike(values: Sequence[float], *, factor: float, floor: float = 0.0) -> Alarm | None:
    """The newest value is above `factor` times its reference, and above `floor`.

    The reference is the median of the 20 values before. While there are fewer (at least 3) it is their maximum: KL to
    the reference policy grows from 0 by a factor of 2 to 4 an update at first, which is no spike.
    """
    if not factor or len(values) <= MIN_REFERENCE:
        return None
    *before, newest = values
    reference = median(before[-REFERENCE:]) if len(before) >= REFERENCE else max(before)
    limit = max(factor * reference, floor)
    return Alarm(newest, limit) if newest > limit else None


def fell_below_start(values: Sequence[float], *, ratio: float) -> Alarm | None:
    """The mean of the last 3 values is below `ratio` times the median of the first 5."""
    if len(values) < 2 * WINDOW:
        return None
    limit, newest = ratio * median(values[:WINDOW]), fmean(values[-3:])
    return Alarm(newest, limit) if newest < limit else None


def fell_below_best(values: Sequence[float], *, ratio: float, least: float = MIN_DROP) -> Alarm | None:
    """The mean of the last 5 values is below `ratio` times the highest such mean so far, and lower by `least`."""
    means = _moving_means(values)
    if not means:
        return None
    limit = min(ratio * max(means), max(means) - least)
    return Alarm(means[-1], limit) if means[-1] < limit else None


def rose_above_lowest(values: Sequence[float], *, rise: float) -> Alarm | None:
    """The mean of the last 5 values is above the lowest such mean so far by more than `rise`."""
    means = _moving_means(values)
    if not rise or not means:
        return None
    limit = min(means) + rise
    return Alarm(means[-1], limit) if means[-1] > limit else None


def stayed_at(values: Sequence[float], *, level: float, updates: int) -> Alarm | None:
    """Each of the last `updates` values is `level`."""
    if not updates or len(values) < updates or any(value != level for value in values[-updates:]):
        return None
    return Alarm(level, level)


def _moving_means(values: Sequence[float]) -> list[float]:
    return [fmean(values[end - WINDOW : end]) for end in range(WINDOW, len(values) + 1)]
