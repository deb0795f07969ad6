"""Small line charts as SVG text, for the HTML page: no script, no font, no file beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from empg_cli.reporting.curves import Curve
from empg_cli.reporting.figures import COLOURS

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22

Scale = Callable[[float], float]


def line_chart(curves: Sequence[Curve], title: str) -> str:
    """Every curve with its band; axes labelled at their ends. Labels are escaped."""
    values = [v for curve in curves for v in (*curve.mean, *(curve.low or ()), *(curve.high or ()))]
    updates = [u for curve in curves for u in curve.updates]
    low, high = min(values), max(values)
    span = (high - low) or max(abs(high), 1.0) * 0.1
    first, last = min(updates), max(updates)

    def x(update: float) -> float:
        return LEFT + (update - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (1 - (value - low) / span) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        _label(LEFT - 4, TOP + 8, f"{high:.3g}", "end"),
        _label(LEFT - 4, HEIGHT - BOTTOM, f"{low:.3g}", "end"),
        _label(LEFT, HEIGHT - 6, str(first), "start"),
        _label(WIDTH - RIGHT, HEIGHT - 6, f"update {last}", "end"),
    ]
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        if curve.low is not None and curve.high is not None:
            above, below = zip(curve.updates, curve.high, strict=True), zip(curve.updates, curve.low, strict=True)
            around = [*below, *reversed([*above])]
            parts.append(f'<polygon points="{_points(around, x, y)}" fill="{colour}" opacity=".18"/>')
        line = _points(zip(curve.updates, curve.mean, strict=True), x, y)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [
            f'<circle cx="{x(u):.1f}" cy="{y(v):.1f}" r="2" fill="{colour}">'
            f"<title>{escape(curve.label)}, update {u}: {v:.4g}</title></circle>"
            for u, v in zip(curve.updates, curve.mean, strict=True)
        ]
    return "".join([*parts, "</svg>"])


def _points(pairs: Iterable[tuple[float, float]], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(update):.1f},{y(value):.1f}" for update, value in pairs)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
