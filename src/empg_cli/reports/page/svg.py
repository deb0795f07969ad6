"""Charts as SVG text, for the HTML page: drawn without a script, coloured by the page's style sheet.

Classes: `c0` .. `c7` the colour of a configuration, `line`, `band`, `seed` (a single run), `bar`, `grid`, `axis`,
`marks` (ticks and name of the horizontal axis). `data-curve` is the place of a shape's curve in the chart: the page's
script moves these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from empg_cli.reports.axes import Axis
from empg_cli.reports.configurations import look
from empg_cli.reports.curves import Curve, LineChart

WIDTH, HEIGHT = 420, 226
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 10, 38
DASHES = ("", "6 3", "2 3")
MOST_SEED_POINTS = 4_000
"""Of single runs in one chart; more are not drawn, for the size of the page."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Values to places in the plot."""

    horizontal: Axis
    vertical: Axis

    def x(self, value: float) -> float:
        low, high = self.horizontal.low, self.horizontal.high
        return LEFT + (value - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Cut at the frame."""
        low, high = self.vertical.low, self.vertical.high
        inside = min(max(value, low), high)
        return TOP + (high - inside) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def begin(self, spoken: str) -> str:
        """The opening tag, grid lines with their values, and the axis at the bottom with its name.

        Args:
            spoken: what a screen reader says.
        """
        parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}">']
        for value, text in self.vertical.marks:
            y = self.y(value)
            parts += [f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>', _label(LEFT - 6, y + 4, text, "end")]
        bottom = HEIGHT - BOTTOM
        parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/><g class="marks">')
        for value, text in self.horizontal.marks:
            x = self.x(value)
            parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>{_label(x, bottom + 17, text, "middle")}')
        parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 2, self.horizontal.name, "middle") + "</g>")
        return "".join(parts)

    def points(self, pairs: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in pairs)


def drawn_lines(chart: LineChart) -> str:
    """Every curve with its band, and single runs where the panel has them."""
    frame = Frame(chart.x, chart.y)
    place = {curve.number: n for n, curve in enumerate(chart.curves)}
    parts = [frame.begin(f"{chart.panel.title}. {_spoken(chart.curves, chart.panel.is_share)}")]
    for curve, *edges in chart.bands():
        low, high = (list(zip(curve.updates, edge, strict=True)) for edge in edges)
        around = frame.points([*low, *reversed(high)])
        data = f'data-curve="{place[curve.number]}"'
        parts.append(f'<polygon class="band c{look(curve.number)[0]}" {data} points="{around}"/>')
    if sum(len(curve.updates) * curve.seeds for curve in chart.curves) <= MOST_SEED_POINTS:
        parts += [_line(curve, place[curve.number], run, frame, "seed") for curve in chart.thin for run in curve.runs]
    for n, curve in enumerate(chart.curves):
        parts.append(_line(curve, n, curve.mean, frame, "line"))
        if len(curve.updates) == 1:
            x, y = frame.x(curve.updates[0]), frame.y(curve.mean[0])
            parts.append(
                f'<circle class="dot c{look(curve.number)[0]}" data-curve="{n}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            )
    return "".join([*parts, "</svg>"])


def _spoken(curves: Sequence[Curve], is_share: bool) -> str:
    def said(value: float) -> str:
        return f"{value:.1%}" if is_share else f"{value:.3g}"

    return "; ".join(
        f"{c.label}: {said(c.mean[0])} at update {c.updates[0]}, {said(c.mean[-1])} at update {c.updates[-1]}"
        for c in curves
    )


def _line(curve: Curve, place: int, values: Sequence[float], frame: Frame, kind: str) -> str:
    colour, dash = look(curve.number)
    dashed = f' stroke-dasharray="{DASHES[dash]}"' if dash else ""
    points = frame.points(zip(curve.updates, values, strict=True))
    return f'<polyline class="{kind} c{colour}" data-curve="{place}"{dashed} points="{points}"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
