"""Histograms, bars and dots with error bars as SVG text, for the diagnostics of the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from empg_cli.evaluation.diagnosis import GradientStep, TokenBin
from empg_cli.reports.axes import Axis, number_axis
from empg_cli.reports.configurations import look
from empg_cli.reports.entropy_change import Change, change_axes
from empg_cli.reports.page.svg import LEFT, RIGHT, WIDTH, Frame
from empg_cli.runs.histograms import Histogram
from empg_cli.stats.intervals import Estimate


@dataclass(frozen=True, slots=True)
class Heap:
    label: str
    colour: str
    """A class of the style sheet."""
    histogram: Histogram

    @property
    def density(self) -> list[float]:
        """Share of the steps per unit of the horizontal axis: comparable between bins of different width."""
        width = (self.histogram.high - self.histogram.low) / len(self.histogram.counts)
        total = sum(self.histogram.counts)
        return [count / total / width for count in self.histogram.counts]


def histogram_chart(heaps: Sequence[Heap], title: str, axis: str) -> str:
    """Densities over one another; the bins of each keep their own edges."""
    low = min(heap.histogram.low for heap in heaps)
    high = max(heap.histogram.high for heap in heaps)
    frame = Frame(_bottom(low, high, axis), number_axis(0.0, max(max(heap.density) for heap in heaps)))
    said = "; ".join(
        f"{heap.label}: {sum(heap.histogram.counts)} steps from {heap.histogram.low:.3g} to {heap.histogram.high:.3g}"
        for heap in heaps
    )
    parts = [frame.begin(f"{title}. {said}")]
    for heap in heaps:
        edges, bars = heap.histogram.edges, []
        for (left, right), height in zip(pairwise(edges), heap.density, strict=True):
            bars += [(left, height), (right, height)]
        points = frame.points([(edges[0], 0.0), *bars, (edges[-1], 0.0)])
        parts.append(f'<polygon class="band {heap.colour}" points="{points}"/>')
        parts.append(f'<polyline class="line {heap.colour}" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def change_chart(change: Change, title: str) -> str:
    """Figure 3: a bar per bin of initial entropy, with the interval of its mean change."""
    frame, bins = Frame(*change_axes([change])), change.bins
    said = f"From {bins[0].change.value:+.3g} in the lowest bin to {bins[-1].change.value:+.3g}"
    parts, colour = [frame.begin(f"{title}. {said}")], look(change.configuration.number)[0]
    for b in bins:
        left, right = (frame.x(edge) for edge in b.percentile)
        top, bottom = sorted((frame.y(b.change.value), frame.y(0.0)))
        text = f"{b.percentile[0]:g} to {b.percentile[1]:g} %: {_spoken(b.change)}, mean |change| {b.absolute:.3g}"
        parts.append(
            f'<rect class="bar c{colour}" x="{left + 1.5:.1f}" y="{top:.1f}" width="{right - left - 3:.1f}" '
            f'height="{bottom - top:.1f}"><title>{escape(text)}</title></rect>'
        )
        parts.append(_whisker(frame, (left + right) / 2, b.change))
    zero = frame.y(0.0)
    return "".join([*parts, f'<path class="axis" d="M{LEFT} {zero:.1f}H{WIDTH - RIGHT}"/>', "</svg>"])


def proposition_chart(bins: Sequence[TokenBin], title: str) -> str:
    """Proposition 1: what it predicts as a line, what sampled tokens gave as dots with intervals."""
    entropies = [b.entropy for b in bins]
    top = max(1.0, *(value for b in bins for value in (b.predicted, b.sampled.high)))
    frame = Frame(_bottom(min(entropies), max(entropies), "Shannon entropy of the token (nats)"), number_axis(0.0, top))
    line = frame.points((b.entropy, b.predicted) for b in bins)
    parts = [frame.begin(title), f'<polyline class="line c6" points="{line}"/>']
    for b in bins:
        x, y = frame.x(b.entropy), frame.y(b.sampled.value)
        text = f"H {b.entropy:.3g}: predicted {b.predicted:.4g}, sampled {_spoken(b.sampled)}"
        parts += [_whisker(frame, x, b.sampled), _dot(x, y, 3, text)]
    return "".join([*parts, "</svg>"])


def gradient_chart(steps: Sequence[GradientStep], title: str) -> str:
    """A dot per step: its entropy, and the norm of its gradient in all parameters."""
    entropies, norms = [step.entropy for step in steps], [step.gradient_norm for step in steps]
    frame = Frame(
        _bottom(min(entropies), max(entropies), "step entropy (nats per token)"), number_axis(0.0, max(norms) or 1.0)
    )
    parts = [frame.begin(title)]
    for step in steps:
        text = f"{step.task_id}, step {step.step}: H {step.entropy:.3g}, norm {step.gradient_norm:.3g}"
        parts.append(_dot(frame.x(step.entropy), frame.y(step.gradient_norm), 2.2, text))
    return "".join([*parts, "</svg>"])


def _bottom(low: float, high: float, name: str) -> Axis:
    return number_axis(low, high, name, count=5)


def _dot(x: float, y: float, radius: float, text: str) -> str:
    return f'<circle class="dot c0" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(text)}</title></circle>'


def _whisker(frame: Frame, x: float, estimate: Estimate) -> str:
    return f'<path class="whisker" d="M{x:.1f} {frame.y(estimate.low):.1f}V{frame.y(estimate.high):.1f}"/>'


def _spoken(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}], n={estimate.n}"
