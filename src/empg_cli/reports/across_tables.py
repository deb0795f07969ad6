"""One table over several studies. The numbers are made in `studies.across`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from empg_cli.files import write_atomically
from empg_cli.reports.tables import NOTHING, Cell, Table, csv_text, latex, markdown
from empg_cli.stats.intervals import Estimate, are_equal
from empg_cli.studies.across import Across

FEW = 20
"""Values below which rliable's authors and our simulation find the interval too narrow to rely on."""


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
    if any(one and are_equal([one.low, one.high]) for row in across.rows for one in (row.iqm, row.difference)):
        notes.append(
            "An interval without width: within each study its values are equal, carry no spread, and are not certain "
            "for it."
        )
    if across.left_out:
        notes.append(f"Not in every study, or with one seed in each, so left out: {', '.join(across.left_out)}.")
    header = ("variant", "values", f"IQM of {across.metric} (%)", "95% interval", f"Δ to {across.base}", "95% interval")
    rows = tuple(
        (Cell(row.variant), Cell(str(row.iqm.n)), *_cells(row.iqm, ""), *_cells(row.difference, "+"))
        for row in across.rows
    )
    warnings = (*(f"MIXED {mixture}." for mixture in across.mixtures), *across.unfair)
    return Table(f"across {len(across.studies)} studies", header, rows, tuple(notes), warnings)


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


def _cells(estimate: Estimate | None, sign: str) -> tuple[Cell, Cell]:
    if estimate is None:
        return Cell(NOTHING), Cell(NOTHING)
    interval = f"[{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"
    return Cell(f"{100 * estimate.value:{sign}.1f}"), Cell(interval)


def _csv(across: Across) -> str:
    columns = ("variant", "values", "iqm", "low", "high", "difference", "difference_low", "difference_high")
    lines = [
        [row.variant, row.iqm.n, *row.iqm[:3], *(row.difference[:3] if row.difference else ("", "", ""))]
        for row in across.rows
    ]
    return csv_text(columns, lines)
