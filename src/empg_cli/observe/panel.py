"""What the dashboard shows, and how: the state of a run as one rich panel or one plain line. No I/O here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from empg_cli.observe.terminal import duration, printable
from empg_cli.runs.evaluations import SuccessRate

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

TICKS = "▁▂▃▄▅▆▇█"
ASCII_TICKS = "_.:-=+*#"
SPARKLINE_WIDTH = 24
NARROW = 70
"""Columns below which the sparklines are dropped."""
_PROGRESS_TEXT = 50
"""Columns that the progress line needs besides its bar."""
TREND_WINDOW = 5
"""Updates: the mean of the last five against the five before."""
PACE_STARTS_WITH = "rollout"
"""The phase that an update begins with."""
ETA_WINDOW = 20
"""Updates whose mean duration predicts the rest."""


@dataclass(frozen=True, slots=True)
class Shown:
    metric: str
    label: str
    format: str
    colour: str
    better: int = 0
    """+1: higher is better; 0: neither."""


SHOWN = (
    Shown("episode/success_rate", "success rate", "{:.1%}", "green", +1),
    Shown("episode/reward/mean", "reward", "{:z.3f}", "cyan", +1),
    Shown("actor/kl_loss", "KL to reference", "{:z.4f}", "yellow"),
    Shown("actor/ppo_kl", "KL to old policy", "{:z.4f}", "yellow"),
    Shown("actor/entropy", "entropy", "{:.3f}", "magenta"),
    Shown("actor/pg_clipfrac", "clip fraction", "{:.2%}", "blue"),
    Shown("perf/throughput", "tokens/s", "{:,.0f}", "white"),
)


def sparkline(values: Sequence[float], width: int = SPARKLINE_WIDTH, ticks: str = TICKS) -> str:
    """Low to high within the values' own range; more values than ticks are averaged into buckets, so that a long
    run keeps its shape. NaN is left out."""
    finite = [value for value in values if value == value]
    if len(finite) > width:
        edges = [i * len(finite) // width for i in range(width + 1)]
        buckets = [finite[start:end] for start, end in itertools.pairwise(edges)]
        finite = [sum(bucket) / len(bucket) for bucket in buckets]
    if not finite:
        return ""
    low = min(finite)
    span = (max(finite) - low) or 1.0
    return "".join(ticks[min(int((value - low) / span * len(ticks)), len(ticks) - 1)] for value in finite)


@dataclass(slots=True)
class RunState:
    title: str
    total_updates: int
    clock: Callable[[], float] = time.monotonic
    update: int = 0
    """Updates done."""
    history: dict[str, list[float]] = field(default_factory=dict)
    phase: tuple[str, int, int] | None = None
    """Name, units done, units in all."""
    last: tuple[int, SuccessRate] | None = None
    best: tuple[int, SuccessRate] | None = None
    _started: float = 0.0
    _finished: list[float] = field(default_factory=list)
    """Times at which the last updates were done, the first one's start before them."""
    _pace_known: bool = False
    _phase_began: tuple[int, float] = (0, 0.0)
    """Units that were done when the phase was first heard of, and the time."""

    def __post_init__(self) -> None:
        self.title = printable(self.title)
        self._started = self.clock()
        self._finished = [self._started]

    def enter(self, phase: str, done: int, total: int) -> None:
        """Where the current update or evaluation is. The pace is measured from the first rollout on: what comes
        before it (warm start, evaluation of the initial policy) says nothing about the updates to come."""
        if phase == PACE_STARTS_WITH and not self._pace_known:
            self._pace_known = True
            self._finished = [self.clock()]
        if self.phase is None or self.phase[0] != printable(phase):
            self._phase_began = (done, self.clock())
        self.phase = (printable(phase), done, total)

    def record(self, update: int, row: Mapping[str, float]) -> None:
        self.update = update
        self.phase = None
        self._pace_known = True
        self._finished = [*self._finished, self.clock()][-ETA_WINDOW - 1 :]
        for shown in SHOWN:
            if shown.metric in row:
                self.history.setdefault(shown.metric, []).append(float(row[shown.metric]))

    def evaluated(self, update: int, result: SuccessRate) -> None:
        self.phase = None
        self.last = (update, result)
        if self.best is None or result["success_rate"] > self.best[1]["success_rate"]:
            self.best = self.last

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self._started

    @property
    def eta_s(self) -> float | None:
        """Seconds to the last update; None before the first one is done."""
        if len(self._finished) < 2:
            return None
        mean = (self._finished[-1] - self._finished[0]) / (len(self._finished) - 1)
        since = self.clock() - self._finished[-1]
        return max(0.0, (self.total_updates - self.update) * mean - since)

    @property
    def phase_eta_s(self) -> float | None:
        """Seconds to the end of a phase before the first update, such as a warm start; None later, and before it moves:
        the updates have their own forecast."""
        began, at = self._phase_began
        if self._pace_known or self.phase is None or self.phase[1] <= began:
            return None
        _, done, total = self.phase
        return (self.clock() - at) / (done - began) * (total - done)

    def trend(self, metric: str) -> int:
        """+1 rising, -1 falling, 0 flat or not yet known."""
        values = self.history.get(metric, [])[-2 * TREND_WINDOW :]
        if len(values) < 2 * TREND_WINDOW:
            return 0
        before, now = sum(values[:TREND_WINDOW]), sum(values[TREND_WINDOW:])
        return (now > before) - (now < before)


def plain_update(state: RunState) -> str:
    """`update 14/60 success_rate=41.6% ... eta=0:10:00`"""
    parts = [f"update {state.update}/{state.total_updates}"]
    for shown in SHOWN:
        if values := state.history.get(shown.metric):
            parts.append(f"{shown.label.replace(' ', '_')}={shown.format.format(values[-1])}")
    if state.eta_s is not None and state.update < state.total_updates:
        parts.append(f"eta={duration(state.eta_s)}")
    return " ".join(parts)


def plain_phase(state: RunState) -> str:
    name, done, total = state.phase or ("", 0, 0)
    eta = "" if state.phase_eta_s is None else f" eta={duration(state.phase_eta_s)}"
    elapsed = duration(state.elapsed_s)
    return f"update {state.update + 1}/{state.total_updates} {name} {done}/{total} elapsed={elapsed}{eta}"


def plain_evaluation(state: RunState) -> str:
    if state.last is None or state.best is None:
        return ""
    update, result = state.last
    best_update, best = state.best
    return (
        f"evaluation at update {update}: success_rate={_rate(result)} {_interval(result)} n={result['n']} "
        f"best={_rate(best)} at update {best_update}"
    )


def _rate(result: SuccessRate) -> str:
    return f"{result['success_rate']:.1%}"


def _interval(result: SuccessRate) -> str:
    return f"[{result['lo']:.1%}, {result['hi']:.1%}]"


def render(state: RunState, width: int, *, ascii_only: bool = False) -> RenderableType:
    """The panel; narrower than 70 columns it has no sparklines."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    is_wide = width >= NARROW
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    if is_wide:
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for shown in SHOWN:
        values = state.history.get(shown.metric)
        if not values:
            continue
        cells = [Text(shown.label, style="dim"), Text(shown.format.format(values[-1]), style=f"bold {shown.colour}")]
        if is_wide:
            ticks = ASCII_TICKS if ascii_only else TICKS
            cells.append(Text(sparkline(list(values), ticks=ticks), style=shown.colour))
        table.add_row(*cells, _trend_mark(state.trend(shown.metric), shown.better, ascii_only))

    parts: list[RenderableType] = [_progress(state, width)]
    if state.history:
        parts += [Text(""), table]
    if state.last and state.best:
        parts += [Text(""), _evaluation(state.last, state.best, between="   " if is_wide else "\n")]
    return Panel(
        Group(*parts),
        title=Text(state.title, style="bold"),
        title_align="left",
        subtitle=Text("Ctrl-C saves and stops", style="dim"),
        subtitle_align="right",
        border_style="blue",
    )


def _progress(state: RunState, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar_width = min(40, width - _PROGRESS_TEXT)
    rows = [("update", state.update, state.total_updates)]
    if state.phase:
        rows.append(state.phase)
    grid = Table.grid(padding=(0, 1))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    for number, (name, done, total) in enumerate(rows):
        times = f"{duration(state.elapsed_s)} eta {_eta(state)}" if number == 0 else ""
        if number == 1 and state.phase_eta_s is not None:
            times = f"eta {duration(state.phase_eta_s)}"
        bar = ProgressBar(total=max(1, total), completed=done, width=bar_width) if bar_width >= 8 else ""
        grid.add_row(Text(name), bar, f"{done}/{total} {times}")
    return grid


def _eta(state: RunState) -> str:
    return "-:--:--" if state.eta_s is None else duration(state.eta_s)


def _trend_mark(trend: int, better: int, ascii_only: bool) -> Text:
    from rich.text import Text

    marks = " ^v" if ascii_only else " ▲▼"
    style = "dim" if not better else ("green" if trend == better else "red")
    return Text(marks[trend], style=style)


def _evaluation(last: tuple[int, SuccessRate], best: tuple[int, SuccessRate], *, between: str) -> Text:
    from rich.text import Text

    return Text.assemble(
        ("evaluation  ", "dim"),
        (_rate(last[1]), "bold green"),
        f" {_interval(last[1])}",
        (f" n={last[1]['n']} @ {last[0]}", "dim"),
        between,
        ("best ", "dim"),
        (f"{_rate(best[1])} @ {best[0]}", "bold"),
    )
