"""One method over several studies: interquartile means with a stratified bootstrap (arXiv 2108.13264)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from empg_cli.errors import UserError
from empg_cli.invocation import command
from empg_cli.runs.mixture import MixedStudy
from empg_cli.runs.reading import each_once
from empg_cli.runs.study import read_study
from empg_cli.stats.intervals import Estimate, iqm_difference, iqm_interval
from empg_cli.studies.comparison import Comparison, VariantRow, compare, is_up_to_one

SHARED = ("code", "packages")
"""What all studies of one table must have been made by."""


class NotTogether(UserError):  # noqa: N818 (a sentence for the user)
    """Studies that cannot be put into one table."""


@dataclass(frozen=True, slots=True)
class AcrossRow:
    variant: str
    iqm: Estimate
    """Over all seeds of all studies; n counts them."""
    difference: Estimate | None
    """To the base, seeds paired within each study; None for the base, without a pair in every study, and with no more
    than one in each."""


@dataclass(frozen=True, slots=True)
class Across:
    metric: str
    base: str
    studies: tuple[str, ...]
    """Folder, benchmark and model of each."""
    rows: tuple[AcrossRow, ...]
    left_out: tuple[str, ...]
    """Variants that some study does not have, or has no finished run of, or of which every study has one alone."""
    mixtures: tuple[str, ...]
    """In what the runs of a study, or those of all studies, were not made of the same."""
    unfair: tuple[str, ...]
    """What must be known of a study before its numbers are compared."""


def compare_across(folders: Sequence[Path], *, mixed: Literal["refuse", "mark"] = "refuse") -> Across:
    """
    Args:
        mixed: what is done with studies that were not all made by the same code and packages, or that hold unlike cells
            themselves; data and weights may differ from study to study.

    Raises:
        MixedStudy: there are such, and `mixed` is refuse.
        NotTogether: fewer than two studies, other metrics or bases, a metric that is not a share, or no common variant.
    """
    folders = each_once(folders)
    if len(folders) < 2:
        raise NotTogether(f"give two studies or more: {command('ablate', '--across', 'STUDY', 'STUDY')}")
    found: list[Comparison] = []
    for folder in folders:
        comparison = compare(read_study(folder))
        if comparison is None:
            raise NotTogether(f"{folder} has no finished cell yet")
        found.append(comparison)
    for what, values in (("metric", [one.metric for one in found]), ("base", [one.base for one in found])):
        if len(set(values)) > 1:
            told = ", ".join(f"{value} in {folder}" for folder, value in zip(folders, values, strict=True))
            raise NotTogether(f"the studies have another {what} each: {told}; give ablation.{what} to `empg ablate`")
    mixtures = tuple(_mixtures(folders, found))
    if mixtures and mixed == "refuse":
        told = "\n".join(f"  {mixture}" for mixture in mixtures)
        what = "the runs of these studies are not made of the same, so no table compares them"
        raise MixedStudy(f"{what}:\n{told}\n  add ablation.mixed=mark to do so all the same; the table then says it")
    first = found[0]
    if not is_up_to_one(first.unit):
        raise NotTogether(f"{first.metric} has no common scale over benchmarks; an IQM needs a share or a score")
    by_variant = [{row.variant: row for row in one.rows} for one in found]
    common = [name for name in by_variant[0] if all(name in rows for rows in by_variant)]
    if first.base not in common:
        raise NotTogether(f"not every study has finished runs of the base, {first.base}")
    # Redrawing one seed gives it back, so an interval would have no width whatever the seeds say.
    common = [name for name in common if any(len(rows[name].runs) > 1 for rows in by_variant)]
    if first.base not in common:
        raise NotTogether(f"each study has one finished run of the base, {first.base}: an interval takes two or more")
    every = dict.fromkeys(name for rows in by_variant for name in rows)
    return Across(
        metric=first.metric,
        base=first.base,
        studies=tuple(_told(folder, one) for folder, one in zip(folders, found, strict=True)),
        rows=tuple(_row(name, [rows[name] for rows in by_variant], found) for name in common),
        left_out=tuple(name for name in every if name not in common),
        mixtures=mixtures,
        unfair=tuple(f"{folder}: {text}" for folder, one in zip(folders, found, strict=True) for text in one.unfair),
    )


def _mixtures(folders: Sequence[Path], found: Sequence[Comparison]) -> Iterator[str]:
    for folder, one in zip(folders, found, strict=True):
        yield from (f"{folder}: {mixture}" for mixture in one.mixtures)
    for part in SHARED:
        values = [(folder, one.facts[part]) for folder, one in zip(folders, found, strict=True) if part in one.facts]
        if len({value for _, value in values}) > 1:
            yield f"{part}: " + "; ".join(f"{value} in {folder}" for folder, value in values)


def _row(name: str, rows: Sequence[VariantRow], found: Sequence[Comparison]) -> AcrossRow:
    values = [[run.value for run in row.runs] for row in rows]
    pairs = [one.pairs(row) for one, row in zip(found, rows, strict=True)]
    difference = iqm_difference(pairs) if all(pairs) and any(len(one) > 1 for one in pairs) else None
    return AcrossRow(name, iqm_interval(values), difference)


def _told(folder: Path, comparison: Comparison) -> str:
    facts = comparison.facts
    runs = sum(len(row.runs) for row in comparison.rows)
    missing = "" if runs == comparison.runs_planned else f" of {comparison.runs_planned}, INCOMPLETE"
    data = f"{facts.get('benchmark', '?')} ({facts.get('data', 'unknown')} data), {facts.get('model', '?')}"
    return f"{folder}: {data}, {runs} runs{missing}"
