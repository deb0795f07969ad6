"""Success by task type: a curve for each type, and a table of the last evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from empg_cli.reports.curves import Curve, Panel, curves_of
from empg_cli.reports.tables import NOTHING, Cell, Table
from empg_cli.runs.evaluations import FOLDER, read_task_types
from empg_cli.runs.reading import RunFolder
from empg_cli.stats.intervals import no_spread

METRIC = re.compile(r"eval/(.+)/success_rate")
AVERAGES = {"id": "ID", "ood": "OOD", "overall": "ID and OOD"}
"""Deep Search: means over sources, each counting once (docs/metrics.md)."""


def type_panels(runs: Sequence[RunFolder]) -> list[Panel]:
    """One for each task type that was evaluated, by name; the averages of Deep Search last."""
    logged = {metric for run in runs for row in run.rows.values() for metric in row}
    found = {match[1]: match[0] for match in map(METRIC.fullmatch, logged) if match}
    ordered = sorted(found, key=lambda kind: (kind in AVERAGES, kind))
    panels = [Panel(found[kind], _title(kind), f"success_{kind}", is_share=True, is_whole=True) for kind in ordered]
    return [panel for panel in panels if curves_of(runs, panel.metric)]


def type_table(runs: Sequence[RunFolder]) -> Table | None:
    """Of a run with tasks, interval, steps and valid actions; of several runs a column for each configuration."""
    panels = type_panels(runs)
    if not panels:
        return None
    return _of_run(runs[0], panels) if len(runs) == 1 else _of_several(runs, panels)


def _of_run(run: RunFolder, panels: Sequence[Panel]) -> Table:
    update = max(_last(run, panel) for panel in panels)
    told = {row["kind"]: row for row in _read(run, update)}
    rows = tuple(tuple(map(Cell, _run_cells(run, panel, update, told.get(_kind(panel), {})))) for panel in panels)
    header = ("task type", "tasks", "success rate", "95 %", "steps", "valid actions")
    notes = [f"the evaluation after update {update}; 95 %: Wilson interval over the tasks; steps and valid actions are "
             "means over its episodes"]  # fmt: skip
    if not told:
        notes.append(f"its file in {FOLDER}/ is not there, so tasks and intervals are not known")
    return Table("Success by task type", header, rows, (*notes, *_average_note(panels)))


def _run_cells(run: RunFolder, panel: Panel, update: int, row: Mapping[str, Any]) -> Iterator[str]:
    value = run.rows[update].get(panel.metric)
    yield panel.title
    yield str(row["n"]) if row else NOTHING
    yield NOTHING if value is None else f"{value:.1%}"
    yield f"[{row['lo']:.1%}, {row['hi']:.1%}]" if row else NOTHING
    yield f"{row['steps']:.1f}" if "steps" in row else NOTHING
    yield f"{row['valid_actions']:.1%}" if "valid_actions" in row else NOTHING


def _of_several(runs: Sequence[RunFolder], panels: Sequence[Panel]) -> Table:
    by_panel = [{curve.number: curve for curve in curves_of(runs, panel.metric)} for panel in panels]
    labels = {number: curve.label for curves in by_panel for number, curve in curves.items()}
    rows = tuple(
        (Cell(panel.title), *(Cell(_mean(curves.get(number))) for number in sorted(labels)))
        for panel, curves in zip(panels, by_panel, strict=True)
    )
    shown = [curve for curves in by_panel for curve in curves.values()]
    updates = sorted({curve.updates[-1] for curve in shown})
    notes = [f"after update {', '.join(map(str, updates))}; ±: half of the 95 % t interval over seeds"]
    if any(curve.seeds == 1 for curve in shown):
        notes.append("one seed: no interval here; its own report has that over its tasks")
    if any(curve.seeds == 2 and not curve.is_equal_at(-1) for curve in shown):
        notes.append("an interval over 2 seeds rests on the one distance between them (t = 12.7) and says little")
    for seeds in sorted({curve.seeds for curve in shown if curve.is_equal_at(-1)}):
        notes.append(f"{no_spread(seeds)}, and are not certain for it")
    return Table("Success by task type", ("task type", *(labels[number] for number in sorted(labels))), rows,
                 (*notes, *_average_note(panels)))  # fmt: skip


def _mean(curve: Curve | None) -> str:
    if curve is None:
        return NOTHING
    mean = f"{curve.mean[-1]:.1%}"
    if curve.is_equal_at(-1):
        return f"{mean} (equal in all {curve.seeds})"
    interval = curve.interval_at(-1)
    return f"{mean} ± {100 * (interval[1] - curve.mean[-1]):.1f}" if interval else mean


def _read(run: RunFolder, update: int) -> list[Mapping[str, Any]]:
    """Nothing of a file that is damaged."""
    is_damaged = f"{FOLDER}/update-{update:06d}.json" in run.damaged
    return [] if is_damaged else read_task_types(run.folder, update)


def _last(run: RunFolder, panel: Panel) -> int:
    last = run.last(panel.metric)
    return last[0] if last else 0


def _average_note(panels: Sequence[Panel]) -> list[str]:
    has_averages = any(_kind(panel) in AVERAGES for panel in panels)
    told = "ID, OOD: means over sources, each counting once; their intervals combine the sources' Wilson limits"
    return [told] if has_averages else []


def _kind(panel: Panel) -> str:
    return panel.metric.removeprefix("eval/").removesuffix("/success_rate")


def _title(kind: str) -> str:
    return AVERAGES.get(kind, kind.replace("_", " "))
