"""One method over several studies: interquartile means with a stratified bootstrap (arXiv 2108.13264)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from empg_cli.errors import UserError
from empg_cli.invocation import command
from empg_cli.reports.tables import NOTHING, Cell, Table, latex, markdown
from empg_cli.runs.rows import write_atomically
from empg_cli.runs.study import read_study
from empg_cli.stats.intervals import Estimate, iqm_difference, iqm_interval
from empg_cli.studies.comparison import Comparison, Row, compare

FEW = 20
"""Values below which rliable's authors and our simulation find the interval too narrow to rely on."""


class NotTogether(UserError):  # noqa: N818 (a sentence for the user)
    """Studies that cannot be put into one table."""


@dataclass(frozen=True, slots=True)
class AcrossRow:
    variant: str
    iqm: Estimate
    """Over all seeds of all studies; n counts them."""
    difference: Estimate | None
    """To the base, seeds paired within each study; None for the base and without a pair in every study."""


@dataclass(frozen=True, slots=True)
class Across:
    metric: str
    base: str
    studies: tuple[str, ...]
    """Folder, benchmark and model of each."""
    rows: tuple[AcrossRow, ...]
    left_out: tuple[str, ...]
    """Variants that some study does not have, or has no finished run of."""


def compare_across(folders: Sequence[Path]) -> Across:
    """
    Raises:
        NotTogether: fewer than two studies, other metrics or bases, a metric that is not a share, or no common variant.
    """
    if len(dict.fromkeys(folder.resolve() for folder in folders)) < 2:
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
    first = found[0]
    if first.unit != "share" and not first.unit.endswith("0..1"):
        raise NotTogether(f"{first.metric} has no common scale over benchmarks; an IQM needs a share or a score")
    by_variant = [{row.variant: row for row in one.rows} for one in found]
    common = [name for name in by_variant[0] if all(name in rows for rows in by_variant)]
    if first.base not in common:
        raise NotTogether(f"not every study has finished runs of the base, {first.base}")
    every = dict.fromkeys(name for rows in by_variant for name in rows)
    return Across(
        metric=first.metric,
        base=first.base,
        studies=tuple(_told(folder, one) for folder, one in zip(folders, found, strict=True)),
        rows=tuple(_row(name, [rows[name] for rows in by_variant], found) for name in common),
        left_out=tuple(name for name in every if name not in common),
    )


def across_table(across: Across) -> Table:
    values = min(row.iqm.n for row in across.rows)
    notes = [
        *(f"study: {study}" for study in across.studies),
        "IQM: mean of the middle half of all seeds of all studies; 95 % bootstrap, seeds redrawn within each study "
        "(arXiv 2108.13264); Δ: seeds paired within each study. With 5 to 10 seeds a study such an interval covers "
        "86 to 93 %, not 95 (simulated), so nothing is bold here: the t intervals of each study decide.",
    ]
    if values < FEW:
        notes.append(f"FEW VALUES: {values} are fewer than {FEW}; rely on the studies' own tables.")
    if across.left_out:
        notes.append(f"Not in every study, so left out: {', '.join(across.left_out)}.")
    header = ("variant", "values", f"IQM of {across.metric} (%)", "95% interval", f"Δ to {across.base}", "95% interval")
    rows = tuple(
        (Cell(row.variant), Cell(str(row.iqm.n)), *_cells(row.iqm, ""), *_cells(row.difference, "+"))
        for row in across.rows
    )
    return Table(f"across {len(across.studies)} studies", header, rows, tuple(notes))


def write_across(across: Across, folder: Path) -> list[Path]:
    """`across.{md,tex,csv,json}` in `folder`."""
    table = across_table(across)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {**asdict(row), "iqm": row.iqm._asdict(), "difference": row.difference and row.difference._asdict()}
        for row in across.rows
    ]
    texts = {
        "across.md": markdown(table),
        "across.tex": latex(table),
        "across.csv": _csv(across),
        "across.json": json.dumps({**asdict(across), "rows": rows}, indent=1) + "\n",
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def _row(name: str, rows: Sequence[Row], found: Sequence[Comparison]) -> AcrossRow:
    values = [[run.value for run in row.runs] for row in rows]
    pairs = [one.pairs(row) for one, row in zip(found, rows, strict=True)]
    difference = iqm_difference(pairs) if all(pairs) else None
    return AcrossRow(name, iqm_interval(values), difference)


def _told(folder: Path, comparison: Comparison) -> str:
    facts = comparison.facts
    runs = sum(len(row.runs) for row in comparison.rows)
    missing = "" if runs == comparison.runs_planned else f" of {comparison.runs_planned}, INCOMPLETE"
    data = f"{facts.get('benchmark', '?')} ({facts.get('data', 'unknown')} data), {facts.get('model', '?')}"
    return f"{folder}: {data}, {runs} runs{missing}"


def _cells(estimate: Estimate | None, sign: str) -> tuple[Cell, Cell]:
    if estimate is None:
        return Cell(NOTHING), Cell(NOTHING)
    interval = f"[{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"
    return Cell(f"{100 * estimate.value:{sign}.1f}"), Cell(interval)


def _csv(across: Across) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "values", "iqm", "low", "high", "difference", "difference_low", "difference_high"])
    for row in across.rows:
        difference = row.difference[:3] if row.difference else ("", "", "")
        writer.writerow([row.variant, row.iqm.n, *row.iqm[:3], *difference])
    return text.getvalue()
