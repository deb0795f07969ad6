"""Curves over updates: the mean over the seeds of a configuration, with a band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from empg_cli.reports.axes import Axis, number_axis, update_axis
from empg_cli.reports.configurations import Configuration, configurations
from empg_cli.runs.reading import RunFolder
from empg_cli.stats.intervals import t_interval


@dataclass(frozen=True, slots=True)
class Panel:
    metric: str
    title: str
    name: str
    """Of its figure files."""
    is_share: bool = False
    """In 0..1, shown in percent."""
    shows_runs: bool = False
    """Single runs of a configuration are drawn too, thin: a mean hides spikes."""


SUCCESS = Panel("eval/success_rate", "success rate, evaluation", "success_rate", is_share=True)
SCORE = Panel("eval/score", "score, evaluation", "score")
REWARD = Panel("episode/reward/mean", "reward, training episodes", "reward")
KL_LOSS = Panel("actor/kl_loss", "KL loss to the reference (nats)", "kl_loss", shows_runs=True)
ENTROPY = Panel("actor/entropy", "policy entropy (nats)", "entropy")
WON = Panel("empg/step_entropy/won", "step entropy, solved (nats per token)", "step_entropy_won")
LOST = Panel("empg/step_entropy/lost", "step entropy, not solved (nats per token)", "step_entropy_lost")
PANELS = (SUCCESS, REWARD, KL_LOSS, ENTROPY)

ROOM = 0.05
"""Above and below what a panel shows, as a share of its span."""


@dataclass(frozen=True, slots=True)
class Curve:
    label: str
    number: int
    """Of its configuration among all that the report has: one colour in every panel."""
    updates: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    """The band: a 95 % t interval over seeds; of a single run's success rate the Wilson interval; else None."""
    high: tuple[float, ...] | None
    runs: tuple[tuple[float, ...], ...]
    """Each run's own values at `updates`."""

    @property
    def seeds(self) -> int:
        return len(self.runs)


@dataclass(frozen=True, slots=True)
class LineChart:
    """A panel as it is drawn, by `page.svg` for the page and by `figures` for papers."""

    panel: Panel
    curves: tuple[Curve, ...]
    x: Axis
    y: Axis

    @property
    def thin(self) -> list[Curve]:
        """Those whose single runs are drawn too."""
        return [curve for curve in self.curves if self.panel.shows_runs and curve.seeds > 1]

    def bands(self) -> list[tuple[Curve, list[float], list[float]]]:
        """Each curve that has one, with the lower and upper edge as they are drawn."""
        found = [(curve, drawn_band(curve, is_share=self.panel.is_share)) for curve in self.curves]
        return [(curve, *band) for curve, band in found if band]


def line_chart(curves: Sequence[Curve], panel: Panel) -> LineChart:
    low, high = value_range(curves, is_share=panel.is_share)
    updates = [update for curve in curves for update in (curve.updates[0], curve.updates[-1])]
    return LineChart(panel, tuple(curves), update_axis(updates), number_axis(low, high, is_share=panel.is_share))


def panels_of(runs: Sequence[RunFolder]) -> list[Panel]:
    """Those that have a curve; the score only where it says more than success does."""
    rows = [row for run in runs for row in run.rows.values()]
    has_score = any(row.get(SCORE.metric) != row.get(SUCCESS.metric) for row in rows)
    chosen = [SUCCESS, *([SCORE] if has_score else []), REWARD, KL_LOSS, ENTROPY, WON, LOST]
    return [panel for panel in chosen if curves_of(runs, panel.metric)]


def curves_of(runs: Sequence[RunFolder], metric: str) -> list[Curve]:
    """A curve per configuration, at the updates that all its runs have: a mean never jumps because a run ended."""
    curves = []
    for configuration in configurations(runs):
        members = configuration.runs
        measured = [{update for update, row in run.rows.items() if row.get(metric) is not None} for run in members]
        shared = set.intersection(*measured)
        if shared:
            curves.append(_curve(configuration, metric, sorted(shared)))
    return curves


def _curve(configuration: Configuration, metric: str, updates: Sequence[int]) -> Curve:
    per_run = [tuple(run.rows[update][metric] or 0.0 for update in updates) for run in configuration.runs]
    low = high = None
    if len(per_run) > 1:
        intervals = [t_interval(at_update) for at_update in zip(*per_run, strict=True)]
        low, high = tuple(i.low for i in intervals), tuple(i.high for i in intervals)
    elif metric == SUCCESS.metric:
        rows = [configuration.runs[0].rows[update] for update in updates]
        low = tuple(row.get(f"{metric}_lo") or 0.0 for row in rows)
        high = tuple(row.get(f"{metric}_hi") or 0.0 for row in rows)
    mean = tuple(math.fsum(at_update) / len(at_update) for at_update in zip(*per_run, strict=True))
    return Curve(configuration.label, configuration.number, tuple(updates), mean, low, high, tuple(per_run))


def band_note(curves: Sequence[Curve]) -> str:
    """What the lines and bands are, for captions."""
    seeds = sorted({curve.seeds for curve in curves})
    several = [n for n in seeds if n > 1]
    notes = []
    if several:
        shown = str(several[0]) if len(several) == 1 else f"{several[0]} to {several[-1]}"
        notes.append(f"mean over {shown} seeds; band: 95 % t interval over seeds")
    if any(curve.seeds == 1 and curve.low for curve in curves):
        notes.append("one seed; band of the success rate: 95 % Wilson interval over its tasks")
    elif 1 in seeds:
        notes.append("one seed, no band")
    return "; ".join(notes)


def left_out_notes(runs: Sequence[RunFolder]) -> list[str]:
    """A sentence per configuration whose unfinished runs are not in its curve."""
    notes = []
    for configuration in configurations(runs):
        unfinished = [f"seed {run.seed} ({run.updates} of {run.planned_updates})" for run in configuration.left_out]
        if unfinished:
            notes.append(f"{configuration.label}: not in the curves, as unfinished: {', '.join(unfinished)}")
    return notes


def drawn_band(curve: Curve, *, is_share: bool = False) -> tuple[list[float], list[float]] | None:
    """Lower and upper edge as they are drawn. An interval over few seeds knows nothing of 0 and 1: of a share it is cut
    there."""
    if curve.low is None or curve.high is None:
        return None
    if not is_share:
        return list(curve.low), list(curve.high)
    return [max(value, 0.0) for value in curve.low], [min(value, 1.0) for value in curve.high]


def value_range(curves: Sequence[Curve], *, is_share: bool = False) -> tuple[float, float]:
    """Of the axis: all lines and the whole of every band, with some room, so that nothing is cut at the frame and no
    band fills it from edge to edge. The axis has 0 on it where that costs little."""
    bands = [band for curve in curves if (band := drawn_band(curve, is_share=is_share))]
    values = [value for curve in curves for run in curve.runs for value in run]
    values += [value for band in bands for edge in band for value in edge]
    low, high = min(values), max(values)
    low = 0.0 if 0 < low < 0.4 * high else low
    room = ROOM * ((high - low) or abs(high) or 1.0)
    return low - room, high + room
