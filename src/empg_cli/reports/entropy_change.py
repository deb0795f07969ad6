"""Figure 3 of the paper for the runs that `empg diagnose` has seen: by configuration, as numbers and axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from empg_cli.evaluation.diagnosis import FOLDER, ChangeBin, EntropyChange, read_diagnosis
from empg_cli.reports.axes import Axis, number_axis
from empg_cli.reports.configurations import Configuration, configurations
from empg_cli.runs.reading import RunFolder
from empg_cli.stats.intervals import t_interval


@dataclass(frozen=True, slots=True)
class Change:
    """Figure 3 of a configuration."""

    configuration: Configuration
    bins: tuple[ChangeBin, ...]
    note: str


def changes(runs: Sequence[RunFolder]) -> list[Change]:
    """Per configuration with a diagnosis of two policies: the bins of its run, or their mean over runs."""
    found = []
    for configuration in configurations(runs):
        read = [(run, read_diagnosis(run.folder / FOLDER)) for run in configuration.runs]
        made = [(run, one.change) for run, one in read if one and one.change]
        if not made:
            continue
        (run, first), *more = made
        same = [change for _, change in more if _is_like(change, first)]
        policies = f"{first.before} to {first.after}"
        if same:
            bins: Sequence[ChangeBin] = _mean_bins([first.bins, *(change.bins for change in same)])
            note = f"{policies}; mean over {len(same) + 1} seeds, 95 % t interval over seeds"
            if len(same) < len(more):
                note += f"; left out, as their policies or bins differ: {len(more) - len(same)}"
        else:
            bins = first.bins
            note = f"{policies}, seed {run.seed}, {sum(b.change.n for b in bins)} steps; 95 % t interval over episodes"
        found.append(Change(configuration, tuple(bins), note))
    return found


def _is_like(change: EntropyChange, first: EntropyChange) -> bool:
    return (change.before, change.after, len(change.bins)) == (first.before, first.after, len(first.bins))


def change_axes(found: Sequence[Change]) -> tuple[Axis, Axis]:
    """Horizontal and vertical; every interval fits, and no change at all is on it."""
    values = [value for change in found for b in change.bins for value in (0.0, b.change.low, b.change.high)]
    low, high = min(values), max(values)
    x = number_axis(0.0, 100.0, "percentile of the initial step entropy", count=5)
    return x, number_axis(low, high if high > low else low + 1.0)


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
