"""The charts in the page's section Diagnostics: entropies of won and lost episodes, EMPG's weights, Figure 3, and what
Proposition 1 says about entropy and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from empg_cli.evaluation.diagnosis import FOLDER, Diagnosis, read_diagnosis
from empg_cli.reports.configurations import configurations
from empg_cli.reports.entropy_change import changes
from empg_cli.reports.page.bars import Heap, change_chart, gradient_chart, histogram_chart, proposition_chart
from empg_cli.runs.reading import RunFolder
from empg_cli.stats.intervals import Estimate

WON_AND_LOST = (("solved", "plus", "hist/step_entropy_won"), ("not solved", "minus", "hist/step_entropy_lost"))
SINGLE = (
    ("EMPG weight g", "g", "hist/weight"),
    ("EMPG future clarity f", "f", "hist/future_clarity"),
    ("what EMPG adds to the advantage", "credit - advantage", "hist/credit_shift"),
)


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    svg: str
    note: str = ""
    key: tuple[tuple[str, str], ...] = ()
    """Colour class and name, where there are several."""


def entropy_charts(runs: Sequence[RunFolder]) -> list[Chart]:
    """Histograms of a single run, and what `empg diagnose` has found of any."""
    charts = _histogram_charts(runs[0]) if len(runs) == 1 else []
    several = len(configurations(runs)) > 1
    for change in changes(runs):
        name = f": {change.configuration.label}" if several else ""
        title = f"change of step entropy by initial entropy (Figure 3){name}"
        charts.append(Chart(title, change_chart(change, title), change.note))
    found = [one for run in runs if (one := read_diagnosis(run.folder / FOLDER))]
    if len(found) == 1:
        charts.append(_proposition(found[0]))
        charts += _gradients(found[0])
    return charts


def _histogram_charts(run: RunFolder) -> list[Chart]:
    charts = []
    parts = [(name, colour, run.histograms(metric)) for name, colour, metric in WON_AND_LOST]
    newest = max((max(by_update) for _, _, by_update in parts if by_update), default=None)
    heaps = [Heap(name, colour, found[newest]) for name, colour, found in parts if newest in found]
    if heaps:
        title = "step entropy by outcome"
        key = tuple((heap.colour, f"{heap.label}, {sum(heap.histogram.counts)} steps") for heap in heaps)
        svg = histogram_chart(heaps, title, "H (nats per token)")
        charts.append(Chart(title, svg, f"density of steps, update {newest}", key))
    for title, axis, metric in SINGLE:
        if by_update := run.histograms(metric):
            update = max(by_update)
            svg = histogram_chart([Heap(title, "c0", by_update[update])], title, axis)
            charts.append(Chart(title, svg, f"density of {sum(by_update[update].counts)} steps, update {update}"))
    return charts


def _proposition(found: Diagnosis) -> Chart:
    title = "squared gradient norm in the logits (Proposition 1)"
    excess: Estimate = found.proposition1.excess
    note = (
        f"line: 1 - exp(-H_2); dots: sampled tokens with 95 % intervals; mean difference {excess.value:+.2g} "
        f"[{excess.low:+.2g}, {excess.high:+.2g}], n={excess.n} tokens"
    )
    return Chart(title, proposition_chart(found.proposition1.bins, title), note)


def _gradients(found: Diagnosis) -> list[Chart]:
    if not (found.gradients and found.gradients.steps):
        return []
    title = "gradient norm in the parameters by step entropy"
    rank = found.gradients.rank
    note = "a dot is a step"
    if rank:
        note += f"; rank correlation {rank.value:.2f} [{rank.low:.2f}, {rank.high:.2f}], n={rank.n}"
    return [Chart(title, gradient_chart(found.gradients.steps, title), note)]
