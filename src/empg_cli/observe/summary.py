"""The end of a run and the result of an evaluation, on stdout: tables on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from empg_cli.invocation import eval_command, resume_command
from empg_cli.observe.terminal import duration, is_live_terminal, printable, write_line
from empg_cli.runs.evaluations import Success, SuccessRate

LABEL_WIDTH = len("first success rate")


@dataclass(frozen=True, slots=True)
class RunReport:
    """What there is to say about a run when it ends, finished or stopped."""

    title: str
    run_dir: Path
    checkpoint: Path | None
    """The newest."""
    updates: int
    total_updates: int
    wall_s: float
    """Seconds of this process, not of earlier ones that it resumed from."""
    data: str
    """`official` or `generated`, from the benchmark's fingerprint."""
    task_kinds: Sequence[str]
    first: tuple[int, SuccessRate] | None = None
    """Update and result of the first, best and last evaluation."""
    best: tuple[int, SuccessRate] | None = None
    last: tuple[int, SuccessRate] | None = None
    groups: Sequence[tuple[str, str]] = ()
    """Label and text of further results: those on groups of task types."""
    kl: float | None = None
    """Last actor/kl_loss, in nats; None without a reference policy."""
    entropy: float | None = None
    """Last actor/entropy, in nats."""
    kl_spikes: Sequence[int] | None = None
    """Updates at which the KL loss spiked (docs/health.md); None without a reference policy."""
    warnings: Mapping[str, int] = field(default_factory=dict)
    """Health warnings, and the update of each."""
    outside: Sequence[str] = ()
    """Words of a command line that name the run's code from outside."""
    best_checkpoint: str | None = None
    """The best one and its success rate; None when no checkpoint was evaluated."""
    left: Sequence[str] = ()
    """Branches that rewinds and restarts have set aside."""
    trackers: Mapping[str, str] = field(default_factory=dict)
    """By their names for people: address of the run, or the command that shows or uploads it."""


def print_run_summary(report: RunReport, stream: TextIO | None = None) -> None:
    """Results, then where everything lies, then the commands to go on with.

    One line each, never wrapped or cut: a path or a command is there to be copied.
    """
    stream = stream or sys.stdout
    _print_heading(report.title, stream)
    for label, value in [*_results(report), *_places(report)]:
        write_line(stream, f"{label:<{LABEL_WIDTH}}  {printable(value)}")


def print_evaluation(kinds: Sequence[Success], total: Success, title: str, stream: TextIO | None = None) -> None:
    """A row per task type, then all of them together."""
    stream = stream or sys.stdout
    header = ["task type", "n", "success", "95% interval", "steps", "score", "valid"]
    rows = [
        [
            printable(row.kind),
            str(row.n),
            f"{row.success_rate:.1%}",
            f"[{100 * row.lo:.1f}, {100 * row.hi:.1f}]",
            f"{row.steps:.1f}",
            f"{row.score:.3f}",
            f"{row.valid_actions:.1%}",
        ]
        for row in [*kinds, total]
    ]
    _print_heading(title, stream)
    if is_live_terminal(stream):
        _print_rich(header, rows, stream)
    else:
        _print_plain([header, *rows], stream)
    write_line(
        stream,
        "success: solved / played, Wilson interval over tasks; steps and score: means over tasks; "
        "valid: share of steps whose action was well-formed and accepted",
    )
    if total.not_judged:
        write_line(stream, f"not judged: {total.not_judged} (the environment failed; they count in no number above)")


def _results(report: RunReport) -> list[tuple[str, str]]:
    pairs = [
        (name, f"{e['success_rate']:.1%}  [{e['lo']:.1%}, {e['hi']:.1%}]  n={e['n']}  after update {update}")
        for name, measured in (
            ("first success rate", report.first),
            ("best success rate", report.best),
            ("last success rate", report.last),
        )
        if measured is not None
        for update, e in [measured]
    ]
    pairs += report.groups
    if report.kl is not None:
        pairs.append(("KL to reference", f"{report.kl:.4f} nats"))
    if report.entropy is not None:
        pairs.append(("entropy", f"{report.entropy:.3f} nats"))
    if report.kl_spikes is not None:
        places = f", at update {', '.join(map(str, report.kl_spikes))}" if report.kl_spikes else ""
        pairs.append(("KL spikes", f"{len(report.kl_spikes)}{places}"))
    if report.warnings:
        pairs.append(("health", ", ".join(f"{name} at update {update}" for name, update in report.warnings.items())))
    is_done = report.updates >= report.total_updates
    pairs += [
        ("updates", f"{report.updates} of {report.total_updates}" + ("" if is_done else " (stopped)")),
        ("wall time", duration(report.wall_s)),
        ("task types", ", ".join(report.task_kinds)),
        ("data", report.data if report.data == "official" else f"{report.data} (not the official benchmark)"),
    ]
    return pairs


def _places(report: RunReport) -> list[tuple[str, str]]:
    pairs = [("folder", str(report.run_dir)), ("metrics", str(report.run_dir / "metrics.jsonl"))]
    if report.checkpoint is not None:
        pairs.append(("checkpoint", str(report.checkpoint)))
    if report.best_checkpoint is not None:
        pairs.append(("best checkpoint", report.best_checkpoint))
    pairs += [("set aside", branch) for branch in report.left]
    pairs.append(("evaluate", eval_command(report.run_dir, report.outside)))
    if report.updates < report.total_updates:
        pairs.append(("go on", resume_command(report.run_dir, report.outside)))
    pairs += report.trackers.items()
    return pairs


def _print_heading(title: str, stream: TextIO) -> None:
    if not is_live_terminal(stream):
        write_line(stream, printable(title))
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=stream, highlight=False).print(Text(printable(title), style="bold"), soft_wrap=True)


def _print_plain(rows: list[list[str]], stream: TextIO) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        write_line(stream, "  ".join([f"{row[0]:<{widths[0]}}", *cells]))


def _print_rich(header: list[str], rows: list[list[str]], stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows[:-1]:
        table.add_row(*map(Text, row))
    table.add_section()
    table.add_row(*map(Text, rows[-1]), style="bold")
    Console(file=stream, highlight=False).print(table)
