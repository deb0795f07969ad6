"""How far a run was after each of its updates, in other units: what curves may be drawn over instead of updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from empg_cli.reports.axes import Axis, number_axis
from empg_cli.runs.reading import RunFolder

UPDATE = "update"
SECONDS = "perf/time_per_step"
SCALES = ((1e6, " (millions)", 1e6), (1e4, " (thousands)", 1e3))
"""From which value on an axis counts in what."""


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    title: str
    metric: str
    """Of a row: a total so far, or the seconds since the row before."""


EPISODES = Measure("episodes", "training episodes", "env/episodes")
TOKENS = Measure("tokens", "sampled tokens", "env/tokens")
HOURS = Measure("hours", "hours", SECONDS)
MEASURES = (EPISODES, TOKENS, HOURS)


def reached(run: RunFolder, measure: Measure) -> dict[int, float]:
    """By update, what the run had come to; hours are the sum over rows, so pauses before a resume do not count.

    A sum ends at the first row that lacks its part.
    """
    logged = {update: run.rows[update].get(measure.metric) for update in sorted(run.rows)}
    if measure is not HOURS:
        return {update: value for update, value in logged.items() if value is not None}
    known = list(takewhile(lambda pair: pair[1] is not None, logged.items()))
    seconds = accumulate(value or 0.0 for _, value in known)
    return {update: total / 3600 for (update, _), total in zip(known, seconds, strict=True)}


def places(runs: Sequence[RunFolder], measure: Measure, updates: Sequence[int]) -> list[float] | None:
    """The mean over these runs after each of these updates; None where one of them does not tell."""
    told = [reached(run, measure) for run in runs]
    if any(update not in own for own in told for update in updates):
        return None
    return [math.fsum(own[update] for own in told) / len(told) for update in updates]


def measure_axis(measure: Measure, values: Sequence[float]) -> Axis:
    """From the lowest to the highest; tens of thousands are counted in thousands."""
    low, high = min(values), max(values)
    unit, scale = next(((unit, scale) for least, unit, scale in SCALES if high >= least), ("", 1.0))
    axis = number_axis(low / scale, high / scale, measure.title + unit, count=5)
    return Axis(low, high, tuple((value * scale, text) for value, text in axis.marks), axis.name)
