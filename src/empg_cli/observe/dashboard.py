"""The view of a running experiment on stderr: a live panel on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TextIO

from empg_cli.observe.console import get_console
from empg_cli.observe.panel import RunState, plain_evaluation, plain_phase, plain_update, render
from empg_cli.observe.terminal import is_live_terminal, printable, write_line
from empg_cli.runs.evaluations import SuccessRate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

Mode = Literal["auto", "rich", "plain", "quiet"]

REFRESH_HZ = 4
QUIET_S = 30.0
"""Plain mode: the least time between two lines, except for those that always come."""


class Dashboard:
    """Use as a context manager around the training loop.

    `auto` is the panel on a terminal and plain lines elsewhere: in a pipe, with CI set, with TERM=dumb. `rich` insists
    on the panel as far as the stream can show one. `quiet` writes nothing. A stream that breaks in the middle of a run
    (a closed terminal) silences the dashboard and nothing else.
    """

    def __init__(
        self,
        mode: Mode,
        title: str,
        total_updates: int,
        *,
        done: int = 0,
        stream: TextIO | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            done: updates that a resumed run has behind it.
            stream: null = stderr, through the console that log lines use too.
            console: for tests and notebooks; given one, `rich` and `auto` draw on it without asking what it is.
        """
        self.state = RunState(title, total_updates, clock=clock, update=done)
        self._stream = stream or sys.stderr
        self._mode = _resolve(mode, self._stream, has_console=console is not None)
        self._clock = clock
        self._last_line = float("-inf")
        self._unprinted_update = False
        self._live: Live | None = None
        if self._mode == "rich":
            self._console = console or _console_on(stream)

    @property
    def mode(self) -> Mode:
        """What `auto` turned out to be; `quiet` after `close`."""
        return self._mode

    def __enter__(self) -> Self:
        if self._mode == "rich":
            from rich.live import Live

            self._live = Live(
                get_renderable=lambda: render(
                    self.state, self._console.width, ascii_only=self._console.options.ascii_only
                ),
                console=self._console,
                refresh_per_second=REFRESH_HZ,
                transient=True,
                redirect_stdout=False,  # stdout is for results
            )
            self._live.start(refresh=True)
        elif self._mode == "plain":
            self._say(self.state.title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the panel off the screen, or say the last update; nothing is written afterwards.

        To be called before anything else writes to the terminal for good: taking the panel away clears as many lines
        above the cursor as it has, whoever wrote them.
        """
        if self._live:
            live, self._live = self._live, None
            self._guarded(live.stop)
        elif self._unprinted_update:
            self._say(plain_update(self.state))
        self._unprinted_update, self._mode = False, "quiet"

    def phase(self, name: str, done: int, total: int) -> None:
        """Progress inside an update or an evaluation, such as ("rollout", 12, 64): a long phase must not look dead."""
        self.state.enter(name, done, total)
        if self._mode == "plain" and self._is_due():
            self._say(plain_phase(self.state))

    def update(self, update: int, row: Mapping[str, float]) -> None:
        """`update`: number of updates done; `row`: its metrics, of which the ones in `panel.SHOWN` are shown."""
        is_first = not self.state.history
        self.state.record(update, row)
        if self._mode == "plain":
            self._unprinted_update = True
            if is_first or update >= self.state.total_updates or self._is_due():
                self._say(plain_update(self.state))
                self._unprinted_update = False

    def evaluation(self, update: int, result: SuccessRate) -> None:
        self.state.evaluated(update, result)
        if self._mode == "plain":
            self._say(plain_evaluation(self.state))

    def message(self, text: str) -> None:
        """A line for people, above the panel. Markup and escape codes in it are not interpreted."""
        if self._mode == "rich":
            from rich.text import Text

            self._guarded(lambda: self._console.print(Text(printable(text)), soft_wrap=True))
        elif self._mode == "plain":
            self._say(printable(text))

    def _is_due(self) -> bool:
        return self._clock() - self._last_line >= QUIET_S

    def _say(self, line: str) -> None:
        self._last_line = self._clock()
        self._guarded(lambda: write_line(self._stream, line))

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, ValueError):  # closed or broken stream: training goes on unseen
            self._mode = "quiet"
            self._unprinted_update = False


def _resolve(mode: Mode, stream: TextIO, *, has_console: bool) -> Mode:
    if mode in ("plain", "quiet"):
        return mode
    if has_console:
        return "rich"
    if not is_live_terminal(stream):
        return "plain"
    return "plain" if mode == "auto" and os.environ.get("CI") else "rich"


def _console_on(stream: TextIO | None) -> Console:
    if stream is None or stream is sys.stderr:
        return get_console()
    from rich.console import Console

    return Console(file=stream, highlight=False)
