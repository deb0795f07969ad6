"""Charts of curves as the page has them: drawn over updates, with what its script needs to draw them over something
else and to tell their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from empg_cli.reports.axes import Axis
from empg_cli.reports.configurations import configurations
from empg_cli.reports.curves import Curve, LineChart, Panel, drawn_band, line_chart, panel_curves
from empg_cli.reports.page.svg import drawn_lines
from empg_cli.reports.progress import MEASURES, UPDATE, Measure, measure_axis, places
from empg_cli.runs.reading import RunFolder

MOST_POINTS, LEAST_POINTS = 400, 40
"""Of a curve on the page; longer ones are thinned (the figures have every point)."""
MOST_POINTS_IN_ALL = 16_000
"""A point takes about 60 bytes of the page, which stays below 2 MB."""

Places = dict[int, dict[int, list[float]]]
"""Configuration, update, and where the update is on each of the axes that the page offers beside updates."""


@dataclass(frozen=True, slots=True)
class Charts:
    shown: list[dict[str, Any]]
    """Title, note, SVG and the number of each chart; in the order of the panels asked for."""
    data: dict[str, Any]
    """For the script."""
    axes: list[tuple[str, str]]
    """Name and title of what the curves can be drawn over."""
    curves: list[Curve]


def charts_of(runs: Sequence[RunFolder], panels: Sequence[Panel]) -> Charts:
    curves = [panel_curves(runs, panel) for panel in panels]
    most = max(LEAST_POINTS, min(MOST_POINTS, MOST_POINTS_IN_ALL // max(1, sum(map(len, curves)))))
    charts = [
        line_chart([_thinned(curve, most) for curve in own], panel) for panel, own in zip(panels, curves, strict=True)
    ]
    measures, by_configuration = _measured(runs, charts)
    data = {
        "axes": [measure.name for measure in measures],
        "places": by_configuration,
        "charts": [_data(chart, measures, by_configuration) for chart in charts],
    }
    shown = [
        {"number": number, "title": chart.panel.title, "note": "thin: single runs" if chart.thin else "",
         "svg": drawn_lines(chart)}
        for number, chart in enumerate(charts)
    ]  # fmt: skip
    axes = [(UPDATE, "updates"), *((measure.name, measure.title) for measure in measures)]
    return Charts(shown, data, axes, [curve for own in curves for curve in own])


def _thinned(curve: Curve, most: int) -> Curve:
    count = len(curve.updates)
    if count <= most:
        return curve
    kept = sorted({round(n * (count - 1) / (most - 1)) for n in range(most)})

    def pick(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[n] for n in kept)

    return replace(
        curve, updates=pick(curve.updates), mean=pick(curve.mean), low=curve.low and pick(curve.low),
        high=curve.high and pick(curve.high), runs=tuple(pick(run) for run in curve.runs),
    )  # fmt: skip


def _measured(runs: Sequence[RunFolder], charts: Sequence[LineChart]) -> tuple[list[Measure], Places]:
    """The measures that every drawn update of every configuration has, and its places on them."""
    drawn: dict[int, set[int]] = {}
    for chart in charts:
        for curve in chart.curves:
            drawn.setdefault(curve.number, set()).update(curve.updates)
    members = {configuration.number: configuration.runs for configuration in configurations(runs)}
    known: list[Measure] = []
    found: Places = {number: {update: [] for update in sorted(updates)} for number, updates in drawn.items()}
    for measure in MEASURES if drawn else ():
        told = {number: places(members[number], measure, list(updates)) for number, updates in found.items()}
        if any(own is None for own in told.values()):
            continue
        known.append(measure)
        for number, own in told.items():
            for update, place in zip(found[number], own or (), strict=True):
                found[number][update].append(float(f"{place:.6g}"))
    return known, found


def _data(chart: LineChart, measures: Sequence[Measure], by_configuration: Places) -> dict[str, Any]:
    axes = {UPDATE: _axis(chart.x)}
    for index, measure in enumerate(measures):
        values = [by_configuration[curve.number][u][index] for curve in chart.curves for u in curve.updates]
        axes[measure.name] = _axis(measure_axis(measure, values))
    return {
        "share": chart.panel.is_share,
        "range": [chart.y.low, chart.y.high],
        "axes": axes,
        "curves": [_curve(curve, chart.panel) for curve in chart.curves],
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"low": axis.low, "high": axis.high, "marks": axis.marks, "name": axis.name}


def _curve(curve: Curve, panel: Panel) -> dict[str, Any]:
    def short(values: Sequence[float] | None) -> list[float] | None:
        return None if values is None else [float(f"{value:.4g}") for value in values]

    low, high = drawn_band(curve, is_share=panel.is_share) or (None, None)
    return {
        "label": curve.label,
        "number": curve.number,
        "seeds": curve.seeds,
        "updates": curve.updates,
        "mean": short(curve.mean),
        "low": short(low),
        "high": short(high),
        "equal": [place for place in range(len(curve.updates)) if curve.is_equal_at(place)],
    }
