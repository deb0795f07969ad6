"""Curves over updates: the mean over the seeds of a configuration, with a band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from empg_cli.observe.terminal import printable
from empg_cli.reports.axes import Axis, number_axis, update_axis
from empg_cli.reports.configurations import Configuration, configurations
from empg_cli.runs.reading import RunFolder
from empg_cli.runs.rows import Row
from empg_cli.stats.intervals import are_equal, t_interval


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
    is_whole: bool = False
    """Its axis goes from 0 to 100 %, so that panels beside it can be compared."""
    is_complement: bool = False
    """What is shown is 1 - the metric."""


SUCCESS = Panel("eval/success_rate", "success rate, evaluation", "success_rate", is_share=True)
SCORE = Panel("eval/score", "score, evaluation", "score")
REWARD = Panel("episode/reward/mean", "reward, training episodes", "reward")
KL_LOSS = Panel("actor/kl_loss", "KL loss to the reference (nats)", "kl_loss", shows_runs=True)
ENTROPY = Panel("actor/entropy", "policy entropy (nats)", "entropy")
WON = Panel("empg/step_entropy/won", "step entropy, solved (nats per token)", "step_entropy_won")
LOST = Panel("empg/step_entropy/lost", "step entropy, not solved (nats per token)", "step_entropy_lost")
VALID = Panel(
    "episode/invalid_action_frac", "valid actions, training", "valid_actions", is_share=True, is_complement=True
)
EPISODE = Panel("episode/length/mean", "steps of an episode, training", "episode_length")
RESPONSE = Panel("response_length/mean", "tokens of a response, training", "response_length")
GRADIENT = Panel("actor/grad_norm", "gradient norm before clipping", "grad_norm")
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

    def is_equal_at(self, place: int) -> bool:
        """Several seeds have one value there: no spread, so no interval. That of t has no width and looks certain."""
        return self.seeds > 1 and are_equal([run[place] for run in self.runs])

    def interval_at(self, place: int) -> tuple[float, float] | None:
        """What may be told as one."""
        if self.low is None or self.high is None or self.is_equal_at(place):
            return None
        return self.low[place], self.high[place]


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
    low, high = (-ROOM, 1 + ROOM) if panel.is_whole else value_range(curves, is_share=panel.is_share)
    updates = [update for curve in curves for update in (curve.updates[0], curve.updates[-1])]
    return LineChart(panel, tuple(curves), update_axis(updates), number_axis(low, high, is_share=panel.is_share))


def panels_of(runs: Sequence[RunFolder]) -> list[Panel]:
    """Those that have a curve; the score only where it says more than success does."""
    rows = [row for run in runs for row in run.rows.values()]
    has_score = any(row.get(SCORE.metric) != row.get(SUCCESS.metric) for row in rows)
    results = [SUCCESS, *([SCORE] if has_score else []), REWARD]
    chosen = [*results, KL_LOSS, ENTROPY, GRADIENT, VALID, EPISODE, RESPONSE, WON, LOST]
    return [panel for panel in chosen if curves_of(runs, panel.metric)]


def panel_curves(runs: Sequence[RunFolder], panel: Panel) -> list[Curve]:
    """`curves_of` its metric, as the panel shows it."""
    curves = curves_of(runs, panel.metric)
    return list(map(_complement, curves)) if panel.is_complement else curves


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
        bounds = [bound for row in rows if (bound := wilson_of(row, metric))]
        if len(bounds) == len(rows):
            low, high = tuple(bound[0] for bound in bounds), tuple(bound[1] for bound in bounds)
    mean = tuple(math.fsum(at_update) / len(at_update) for at_update in zip(*per_run, strict=True))
    return Curve(configuration.label, configuration.number, tuple(updates), mean, low, high, tuple(per_run))


def wilson_of(row: Row, metric: str) -> tuple[float, float] | None:
    """The interval that a run has logged beside the metric; older and foreign rows have none."""
    low, high = row.get(f"{metric}_lo"), row.get(f"{metric}_hi")
    return None if low is None or high is None else (low, high)


def _complement(curve: Curve) -> Curve:
    def turned(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(1.0 - value for value in values)

    return replace(
        curve, mean=turned(curve.mean), low=curve.high and turned(curve.high), high=curve.low and turned(curve.low),
        runs=tuple(map(turned, curve.runs)),
    )  # fmt: skip


def band_note(curves: Sequence[Curve]) -> str:
    """What the lines and bands are, for captions."""
    seeds = sorted({curve.seeds for curve in curves})
    several = [n for n in seeds if n > 1]
    notes = []
    if several:
        shown = str(several[0]) if len(several) == 1 else f"{several[0]} to {several[-1]}"
        notes.append(f"mean over {shown} seeds; band: 95 % t interval over seeds")
    if any(curve.is_equal_at(place) for curve in curves for place in range(len(curve.updates))):
        notes.append("where all seeds are equal they carry no spread, so no band, and are not certain for it")
    if any(curve.seeds == 1 and curve.low for curve in curves):
        notes.append("one seed; band of the success rate: 95 % Wilson interval over its tasks")
    elif 1 in seeds:
        notes.append("one seed, no band")
    return "; ".join(notes)


def left_out_notes(runs: Sequence[RunFolder]) -> list[str]:
    """A sentence per configuration whose unfinished runs, or those of a seed that is there already, are not in its
    curve."""
    notes = []
    for configuration in configurations(runs):
        unfinished = [f"seed {run.seed} ({run.updates} of {run.planned_updates})" for run in configuration.left_out]
        again = [f"seed {run.seed} ({printable(str(run.folder))})" for run in configuration.repeated]
        for why, left_out in (("as unfinished", unfinished), ("as that seed is there already", again)):
            if left_out:
                notes.append(f"{configuration.label}: not in the curves, {why}: {', '.join(left_out)}")
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
