"""Curves over updates: the mean over the seeds of a configuration, with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from empg_cli.evaluation.statistics import t_interval
from empg_cli.reporting.runs import RunFolder


@dataclass(frozen=True, slots=True)
class Panel:
    metric: str
    title: str


PANELS = (
    Panel("eval/success_rate", "success rate, evaluation"),
    Panel("episode/reward/mean", "reward, training episodes"),
    Panel("actor/kl_loss", "KL loss to the reference (nats)"),
    Panel("actor/entropy", "policy entropy (nats)"),
)


@dataclass(frozen=True, slots=True)
class Curve:
    label: str
    seeds: int
    updates: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    """The band: a 95 % t interval over seeds; of a single run's success rate the Wilson interval; else None."""
    high: tuple[float, ...] | None


def curves_of(runs: Sequence[RunFolder], metric: str) -> list[Curve]:
    """A curve per configuration, at the updates that all its runs have: a mean never jumps because a run ended."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    curves = []
    for members in groups.values():
        measured = [{update for update, row in run.rows.items() if row.get(metric) is not None} for run in members]
        shared = set.intersection(*measured)
        if shared:
            curves.append(_curve(members, metric, sorted(shared)))
    return _with_distinct_labels(curves)


def _curve(members: Sequence[RunFolder], metric: str, updates: Sequence[int]) -> Curve:
    values = [[run.rows[update][metric] or 0.0 for run in members] for update in updates]
    low = high = None
    if len(members) > 1:
        intervals = [t_interval(at_update) for at_update in values]
        low, high = tuple(i.low for i in intervals), tuple(i.high for i in intervals)
    elif metric == "eval/success_rate":
        rows = [members[0].rows[update] for update in updates]
        low = tuple(row.get(f"{metric}_lo") or 0.0 for row in rows)
        high = tuple(row.get(f"{metric}_hi") or 0.0 for row in rows)
    mean = tuple(sum(at_update) / len(at_update) for at_update in values)
    return Curve(members[0].label, len(members), tuple(updates), mean, low, high)


def _with_distinct_labels(curves: list[Curve]) -> list[Curve]:
    labels = [curve.label for curve in curves]
    return [
        replace(curve, label=f"{curve.label} #{number}") if labels.count(curve.label) > 1 else curve
        for number, curve in enumerate(curves, start=1)
    ]


def band_note(curves: Sequence[Curve]) -> str:
    """What the bands are, for captions."""
    seeds = sorted({curve.seeds for curve in curves})
    if seeds and seeds[-1] > 1:
        shown = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return f"mean over {shown} seeds; band: 95 % t interval over seeds"
    return "one run; band of the success rate: 95 % Wilson interval over its tasks"
