"""What diagnostics a report can draw of its runs: entropies of won and lost episodes, EMPG's weights, Figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from empg_cli.evaluation.diagnosis import ChangeBin, Diagnosis
from empg_cli.reports.configurations import Configuration, configurations
from empg_cli.reports.diagnostics import diagnosis, histograms, kl_spikes
from empg_cli.reports.page.bars import Heap, change_chart, gradient_chart, histogram_chart, proposition_chart
from empg_cli.reports.page.svg import COLOURS
from empg_cli.runs.reading import RunFolder
from empg_cli.stats.intervals import Estimate, t_interval

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


@dataclass(frozen=True, slots=True)
class Change:
    """Figure 3 of a configuration."""

    configuration: Configuration
    bins: tuple[ChangeBin, ...]
    note: str


def diagnostic_charts(runs: Sequence[RunFolder]) -> list[Chart]:
    """Histograms of a single run, and what `empg diagnose` has found of any."""
    charts = _histogram_charts(runs[0]) if len(runs) == 1 else []
    several = len(configurations(runs)) > 1
    for change in changes(runs):
        name = f": {change.configuration.label}" if several else ""
        title = f"change of step entropy by initial entropy (Figure 3){name}"
        svg = change_chart(change.bins, title, f"c{change.configuration.number % COLOURS}")
        charts.append(Chart(title, svg, change.note))
    found = [(run, one) for run in runs if (one := diagnosis(run))]
    if len(found) == 1:
        charts.append(_proposition(found[0][1]))
        charts += _gradients(found[0][1])
    return charts


def spike_note(runs: Sequence[RunFolder]) -> str:
    """How many runs of each configuration had a KL spike; empty where no run has counted them."""
    parts = []
    for configuration in configurations(runs):
        counted = [run for run in configuration.runs if run.last("health/kl_spikes")]
        if counted:
            spiked = sum(bool(kl_spikes(run)) for run in counted)
            parts.append(f"{configuration.label} {spiked} of {len(counted)}")
    return f"runs with a KL spike: {', '.join(parts)}" if parts else ""


def changes(runs: Sequence[RunFolder]) -> list[Change]:
    """Per configuration with a diagnosis of two policies: the bins of its run, or their mean over runs."""
    found = []
    for configuration in configurations(runs):
        made = [(run, one.change) for run in configuration.runs if (one := diagnosis(run)) and one.change]
        if not made:
            continue
        (run, first), *more = made
        same = [change for _, change in more if len(change.bins) == len(first.bins)]
        policies = f"{first.before} to {first.after}"
        if same:
            bins: Sequence[ChangeBin] = _mean_bins([first.bins, *(change.bins for change in same)])
            note = f"{policies}; mean over {len(same) + 1} seeds, 95 % t interval over seeds"
            if len(same) < len(more):
                note += f"; left out, as their bins differ: {len(more) - len(same)}"
        else:
            bins = first.bins
            note = f"{policies}, seed {run.seed}, {sum(b.change.n for b in bins)} steps; 95 % t interval over episodes"
        found.append(Change(configuration, tuple(bins), note))
    return found


def _mean_bins(per_run: Sequence[Sequence[ChangeBin]]) -> list[ChangeBin]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return [
        replace(
            alike[0],
            before=mean([b.before for b in alike]),
            after=mean([b.after for b in alike]),
            change=t_interval([b.change.value for b in alike]),
            absolute=mean([b.absolute for b in alike]),
        )
        for alike in zip(*per_run, strict=True)
    ]


def _histogram_charts(run: RunFolder) -> list[Chart]:
    charts = []
    parts = [(name, colour, histograms(run, metric)) for name, colour, metric in WON_AND_LOST]
    newest = max((max(by_update) for _, _, by_update in parts if by_update), default=None)
    heaps = [Heap(name, colour, found[newest]) for name, colour, found in parts if newest in found]
    if heaps:
        title = "step entropy by outcome"
        key = tuple((heap.colour, f"{heap.label}, {sum(heap.histogram.counts)} steps") for heap in heaps)
        svg = histogram_chart(heaps, title, "H (nats per token)")
        charts.append(Chart(title, svg, f"density of steps, update {newest}", key))
    for title, axis, metric in SINGLE:
        if by_update := histograms(run, metric):
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
    rank: Estimate = found.gradients.rank
    note = f"a dot is a step; rank correlation {rank.value:.2f} [{rank.low:.2f}, {rank.high:.2f}], n={rank.n}"
    return [Chart(title, gradient_chart(found.gradients.steps, title), note)]
