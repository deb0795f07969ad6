"""Charts as SVG text, for the HTML page: drawn without a script, coloured by the page's style sheet.

Classes: `c0` .. `c7` the colour of a configuration, `line`, `band`, `seed` (a single run), `bar`, `grid`, `axis`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from empg_cli.reports.axes import tick_labels, ticks
from empg_cli.reports.curves import Curve, drawn_band, value_range

WIDTH, HEIGHT = 420, 226
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 10, 38
COLOURS = 8
DASHES = ("", "6 3", "2 3")
"""Beyond eight configurations the colours come again, dashed."""
MOST_SEED_POINTS = 4_000
"""Of single runs in one chart; more are not drawn, for the size of the page."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The values at the edges of the plot."""

    first: float
    last: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.first) / ((self.last - self.first) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Cut at the frame."""
        inside = min(max(value, self.low), self.high)
        return TOP + (self.high - inside) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def frame_of(curves: Sequence[Curve], *, is_share: bool = False) -> Frame:
    updates = [update for curve in curves for update in (curve.updates[0], curve.updates[-1])]
    return Frame(min(updates), max(updates), *value_range(curves, is_share=is_share))


def line_chart(curves: Sequence[Curve], title: str, *, is_share: bool = False, with_seeds: bool = False) -> str:
    """Every curve with its band.

    Args:
        is_share: label the axis in percent.
        with_seeds: also each run of a configuration that has several, as a thin line.
    """
    frame = frame_of(curves, is_share=is_share)
    parts = [
        start(f"{title}. {_spoken(curves, is_share)}"),
        *value_axis(frame, is_share=is_share),
        *_update_axis(frame),
    ]
    for curve in curves:
        if band := drawn_band(curve, is_share=is_share):
            low, high = (list(zip(curve.updates, edge, strict=True)) for edge in band)
            parts.append(
                f'<polygon class="band c{curve.number % COLOURS}" points="{_points([*low, *reversed(high)], frame)}"/>'
            )
    if with_seeds and sum(len(curve.updates) * curve.seeds for curve in curves) <= MOST_SEED_POINTS:
        parts += [_line(curve, run, frame, "seed") for curve in curves if curve.seeds > 1 for run in curve.runs]
    for curve in curves:
        parts.append(_line(curve, curve.mean, frame, "line"))
        if len(curve.updates) == 1:
            x, y = frame.x(curve.updates[0]), frame.y(curve.mean[0])
            parts.append(f'<circle class="dot c{curve.number % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return "".join([*parts, "</svg>"])


def start(label: str) -> str:
    """The opening tag; `label` is what a screen reader says."""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'


def _spoken(curves: Sequence[Curve], is_share: bool) -> str:
    def said(value: float) -> str:
        return f"{value:.1%}" if is_share else f"{value:.3g}"

    return "; ".join(
        f"{c.label}: {said(c.mean[0])} at update {c.updates[0]}, {said(c.mean[-1])} at update {c.updates[-1]}"
        for c in curves
    )


def value_axis(frame: Frame, *, is_share: bool = False) -> list[str]:
    """Grid lines with their values at the left."""
    marks = ticks(frame.low, frame.high)
    parts = []
    for value, text in zip(marks, tick_labels(marks, is_share=is_share), strict=True):
        y = frame.y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(label(LEFT - 6, y + 4, text, "end"))
    return parts


def number_axis(frame: Frame, name: str) -> list[str]:
    """The axis at the bottom; the name stands beside its last number."""
    marks = ticks(frame.first, frame.last, 5)
    return _bottom_axis(frame, marks, tick_labels(marks), name)


def _update_axis(frame: Frame) -> list[str]:
    if frame.first == frame.last:
        return _bottom_axis(frame, [frame.first], [f"{frame.first:g}"], "update")
    marks = [value for value in ticks(frame.first, frame.last, 6) if value == int(value)]
    return _bottom_axis(frame, marks, [f"{value:g}" for value in marks], "update")


def _bottom_axis(frame: Frame, marks: Sequence[float], texts: Sequence[str], name: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>']
    for value, text in zip(marks, texts, strict=True):
        x = frame.x(value)
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
        parts.append(label(x, bottom + 17, text, "middle"))
    return [*parts, label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 2, name, "middle")]


def _line(curve: Curve, values: Sequence[float], frame: Frame, kind: str) -> str:
    dashes = DASHES[curve.number // COLOURS % len(DASHES)]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    points = _points(zip(curve.updates, values, strict=True), frame)
    return f'<polyline class="{kind} c{curve.number % COLOURS}"{dashed} points="{points}"/>'


def _points(pairs: Iterable[tuple[float, float]], frame: Frame) -> str:
    return " ".join(f"{frame.x(update):.1f},{frame.y(value):.1f}" for update, value in pairs)


def label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
