"""`empg show`: a run in the terminal, with the same content as the page; and what every metric means."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from rich.bar import Bar
from rich.console import Console, Group
from rich.panel import Panel as RichPanel
from rich.table import Table
from rich.text import Text

from empg_cli.invocation import command
from empg_cli.observe.catalogue import FAMILIES, METRICS
from empg_cli.observe.panel import sparkline
from empg_cli.observe.terminal import printable
from empg_cli.reports.curves import band_note, drawn_band, left_out_notes, panel_curves, panels_of
from empg_cli.reports.entropy_change import changes
from empg_cli.reports.health_history import health_warnings, spike_note
from empg_cli.reports.page.kept_trajectories import in_turn
from empg_cli.runs.reading import RunFolder
from empg_cli.stats.intervals import no_spread

LONGEST_TEXT = 600
HISTOGRAMS = (
    ("step entropy, solved", "hist/step_entropy_won"),
    ("step entropy, not solved", "hist/step_entropy_lost"),
    ("EMPG weight g", "hist/weight"),
    ("EMPG future clarity f", "hist/future_clarity"),
    ("credit - advantage", "hist/credit_shift"),
)


def show_run(run: RunFolder, *, trajectories: int, texts: bool = False, stream: TextIO | None = None) -> None:
    """Curves, diagnostics and trajectories of one run.

    Args:
        texts: with what the model read and wrote in every step.
    """
    console = _console(stream)
    console.print(Text(printable(run.title), style="bold"))
    note = "" if run.data_source == "official" else " (not the official benchmark)"
    console.print(Text(printable(f"{run.folder}   data: {run.data_source}{note}"), style="dim"), soft_wrap=True)
    console.print(_curves([run]))
    console.print(_diagnostics(run))
    for warning in health_warnings(run):
        line = Text(f"! update {warning.update}, {warning.name}: ", style="yellow")
        console.print(line.append(printable(warning.text), style=""))
    show_trajectories(in_turn(run.trajectories()), most=trajectories, texts=texts, stream=stream)


def show_trajectories(
    records: Sequence[dict[str, Any]], *, most: int, texts: bool = False, stream: TextIO | None = None
) -> None:
    """The first `most` of them, and how many more there are."""
    console = _console(stream)
    largest = max((abs(step.get("credit") or 0.0) for record in records for step in record["steps"]), default=0.0)
    for record in records[:most]:
        console.print(_trajectory(record, largest, texts))
    if not records:
        console.print("no trajectories are kept in this run (logger.trajectories=0, or it was not evaluated yet)")
        return
    more = [f"{most} of {len(records)} trajectories; more with --trajectories N"] if len(records) > most else []
    if most and not texts:
        more.append("what the model read and wrote: --texts")
    if more:
        console.print(Text("; ".join(more), style="dim"))


def show_runs(runs: Sequence[RunFolder], stream: TextIO | None = None) -> None:
    """Curves of several runs, a line per configuration."""
    console = _console(stream)
    console.print(_curves(runs))
    notes = [*left_out_notes(runs), spike_note(runs), f"a trajectory's steps: {command('show', 'RUN')}"]
    for note in filter(None, notes):
        console.print(Text(printable(note), style="dim"))
    for run in runs:
        console.print(
            Text(printable(f"  {run.folder}   {run.updates} of {run.planned_updates} updates")), soft_wrap=True
        )


def list_metrics(search: str | None, stream: TextIO | None = None) -> None:
    """Every metric with unit and definition, or those whose name or definition holds `search`."""
    console = _console(stream)
    wanted = [m for m in METRICS if not search or search.lower() in f"{m.name} {m.definition}".lower()]
    if not wanted:
        console.print(f"no metric has {search!r} in its name or definition", markup=False)
    for family, meaning in FAMILIES.items():
        members = [metric for metric in wanted if metric.family == family]
        if not members:
            continue
        console.print(Text(f"\n{family}", style="bold cyan"), Text(meaning, style="dim"))
        table = Table.grid(padding=(0, 2))
        for metric in members:
            table.add_row(Text(metric.name), Text(metric.unit, style="dim"), Text(metric.definition))
        console.print(table)


def _curves(runs: Sequence[RunFolder]) -> Group:
    """Per panel and configuration: the last value, its interval, and a sparkline."""
    table = Table.grid(padding=(0, 2))
    shown = []
    for panel in panels_of(runs):
        curves = panel_curves(runs, panel)
        shown += curves
        for number, curve in enumerate(curves):
            form = ".1%" if panel.is_share else ".4g"
            last = f"{curve.mean[-1]:{form}}"
            if curve.is_equal_at(-1):
                last += f" ({no_spread(curve.seeds)})"
            elif band := drawn_band(curve, is_share=panel.is_share):
                last += f" [{band[0][-1]:{form}}, {band[1][-1]:{form}}]"
            names = [panel.title if number == 0 else "", *([printable(curve.label)] if len(runs) > 1 else [])]
            cells = [*names, last, f"after update {curve.updates[-1]}", sparkline(list(curve.mean), 24)]
            table.add_row(*map(Text, cells))
    return Group(table, Text(band_note(shown), style="dim"))


def _diagnostics(run: RunFolder) -> Table:
    """The histograms of the newest update, and Figure 3, each as a row of ticks."""
    table = Table.grid(padding=(0, 2))
    for name, metric in HISTOGRAMS:
        if by_update := run.histograms(metric):
            update = max(by_update)
            heap = by_update[update]
            span = f"{heap.low:.3g} to {heap.high:.3g}"
            note = f"{sum(heap.counts)} steps of update {update}"
            table.add_row(
                Text(name), Text(span), Text(note, style="dim"), sparkline(list(heap.counts), len(heap.counts))
            )
    for change in changes([run]):
        means = [b.change.value for b in change.bins]
        span = f"{means[0]:+.3g} to {means[-1]:+.3g}"
        ticks = sparkline(means, len(means))
        table.add_row(Text("entropy change by initial entropy"), Text(span), Text(change.note, style="dim"), ticks)
    return table


def _trajectory(record: dict[str, Any], largest: float, texts: bool) -> RichPanel:
    verdict = ("✓ solved", "green") if record["success"] else (f"✗ {record['status']}", "red")
    phase = {"eval": "evaluation", "train": "training"}[record["phase"]]
    title = Text(f"{verdict[0]} · {phase}, update {record['update']} · ", style=verdict[1])
    title.append(printable(f"{record['kind']} · {record['task_id']} · reward {record['reward']:.2f}"), style="")
    return RichPanel(Group(*(_step(number, step, largest, texts) for number, step in enumerate(record["steps"], 1))),
                     title=title, title_align="left", border_style="dim")  # fmt: skip


def _step(number: int, step: dict[str, Any], largest: float, texts: bool) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=3, justify="right")
    grid.add_column(ratio=1)
    grid.add_column(width=34)
    response = step.get("response")  # older run folders have none
    said = Text(
        printable(step["prompt"]) if texts and response is not None else _short(step["observation"]), style="dim"
    )
    if response is not None and (texts or not step["well_formed"]):
        said.append("\n" + (printable(response) if texts else _short(response)), style="not dim cyan")
    said.append("\n> " + _short(step["action"]), style="bold")
    if not step["well_formed"]:
        said.append("  malformed", style="red")
    if not step["admissible"]:
        said.append("  refused", style="red")
    grid.add_row(str(number), said, _numbers(step, largest))
    return grid


def _numbers(step: dict[str, Any], largest: float) -> Group:
    lines: list[Text | Bar] = []
    if step.get("entropy") is not None:
        parts = [f"H {step['entropy']:.3f}"]
        parts += [f"{name} {step[name]:.3f}" for name in ("g", "f") if step.get(name) is not None]
        lines.append(Text("  ".join(parts)))
    if step.get("credit") is not None and step.get("advantage") is not None:
        credit = _signed(step["credit"])
        colour = {"+": "green", "-": "red"}.get(credit[0], "default")
        lines.append(Text(f"advantage {_signed(step['advantage'])}  ").append(f"credit {credit}", style=colour))
        lines.append(Bar(largest or 1.0, 0, abs(step["credit"]), width=20, color=colour))
    return Group(*lines)


def _signed(value: float) -> str:
    """What would show as +0.000 or -0.000 is neither."""
    text = f"{value:+.3f}"
    return text if float(text) else text[1:]


def _short(text: str) -> str:
    clean = printable(text)
    return clean if len(clean) <= LONGEST_TEXT else clean[:LONGEST_TEXT] + " [...]"


def _console(stream: TextIO | None) -> Console:
    return Console(file=stream or sys.stdout, highlight=False, markup=False)
