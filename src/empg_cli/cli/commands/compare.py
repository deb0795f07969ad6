"""`empg eval --compare A B`: paired statistics of two evaluations on the same tasks. Plays nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from empg_cli.evaluation.paired import PairedComparison, compare_evaluations
from empg_cli.reports.tables import Cell, Table, p_text, print_table
from empg_cli.stats.paired import PairedCounts


def run(path_a: Path, path_b: Path, *, as_json: bool) -> None:
    comparison = compare_evaluations(path_a, path_b)
    if as_json:
        print(json.dumps(comparison.as_dict()))
        return
    print_table(comparison_table(comparison), sys.stdout)


def comparison_table(comparison: PairedComparison) -> Table:
    a, b = comparison.a, comparison.b
    header = ("task type", "n", "A", "B", "B - A", "95% interval", "only A", "only B", "p")
    notes = [
        f"A: {a.path}",
        f"B: {b.path}",
        "interval: paired (Agresti and Min); p: exact two-sided sign test over the tasks that only one of them solved; "
        "bold: the interval over all tasks leaves out 0 (task types are not corrected for their number: never bold). "
        "One evaluation of each: chance in training is not in it (`empg ablate`).",
    ]
    if a.temperature != b.temperature:
        notes.append(f"The temperatures differ: {a.temperature:g} in A, {b.temperature:g} in B.")
    if comparison.not_judged:
        notes.append(f"{comparison.not_judged} tasks left out: the environment failed in A or in B.")
    source = str(a.data["source"])
    title = f"{a.data['name']} ({source} data), {a.split}"
    rows = (*(_cells(row) for row in comparison.kinds), _cells(comparison.total, may_be_bold=True))
    return Table(title, header, rows, tuple(notes))


def _cells(row: PairedCounts, *, may_be_bold: bool = False) -> tuple[Cell, ...]:
    _, low, high, _ = row.difference
    interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    texts = (row.kind, str(row.n), f"{row.rate_a:.1%}", f"{row.rate_b:.1%}")
    is_sure = may_be_bold and (low > 0 or high < 0)
    return (
        *map(Cell, texts),
        Cell(f"{100 * row.difference.value:+.1f}", bold=is_sure),
        *map(Cell, (interval, str(row.only_a), str(row.only_b), p_text(row.p_value))),
    )
