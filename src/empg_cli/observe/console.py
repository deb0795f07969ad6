"""What the command line writes for people: console, log lines, errors. All on stderr; stdout is for results."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from copy import copy
from functools import cache
from typing import TYPE_CHECKING

from empg_cli.config.secrets import without_secrets
from empg_cli.observe.terminal import is_live_terminal, printable, write_line

if TYPE_CHECKING:
    from rich.console import Console

    from empg_cli.config.problems import ConfigError

A_BUG = "this is a bug in empg, or in code from outside that it runs: the traceback above says where; please report it"


class Masking(logging.Formatter):
    """Without secrets, those in tracebacks among them: libraries log what they were asked for."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


PLAIN = Masking("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")


@cache
def get_console() -> Console:
    """The process's only console: log lines scroll above a live panel instead of tearing it."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def is_watched() -> bool:
    """Somebody watches stderr: a terminal, and not a CI job that merely has one."""
    return is_live_terminal(sys.stderr) and not os.environ.get("CI")


class ConsoleHandler(logging.Handler):
    """Rich lines on a terminal, plain lines in a pipe, a CI log or a Slurm .err file."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._rich: logging.Handler | None = None
        if is_watched():
            from rich.logging import RichHandler

            self._rich = RichHandler(console=get_console(), show_path=False, log_time_format="%H:%M:%S")
            self._rich.setFormatter(logging.Formatter("%(message)s", datefmt="%H:%M:%S"))

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 (logging's own name)
        """Logging configurations name a formatter; each form above has the one that fits it."""

    def emit(self, record: logging.LogRecord) -> None:
        if self._rich is not None:
            self._rich.emit(_in_one_text(record))
            return
        try:
            write_line(sys.stderr, PLAIN.format(record))
        except (OSError, ValueError):  # a closed stream
            self.handleError(record)


def _in_one_text(record: logging.LogRecord) -> logging.LogRecord:
    """Message and traceback, without secrets: rich would print frames of its own."""
    found = copy(record)
    found.msg = Masking("%(message)s").format(copy(record))
    found.args = found.exc_info = found.exc_text = None
    return found


def show_error(message: str) -> None:
    write_line(sys.stderr, f"error: {printable(without_secrets(message))}")


def show_bug(error: Exception) -> None:
    """What no border knows, with its traceback: that is what mends it."""
    write_line(sys.stderr, printable(without_secrets("".join(traceback.format_exception(error)))))
    show_error(f"{type(error).__name__}: {error}\n  {A_BUG}")


def show_config_error(error: ConfigError) -> None:
    """All problems in one red panel; plain lines where nobody watches."""
    if not is_watched():
        show_error(str(error))
        return
    from rich.panel import Panel
    from rich.text import Text

    from empg_cli.config.problems import shortened

    body = Text()
    for number, problem in enumerate(error.problems):
        body.append("\n" if number else "")
        if problem.key:
            body.append(printable(shortened(problem.key)), style="bold").append("  ")
        body.append(printable(without_secrets(problem.what)))
        if problem.got is not None:
            body.append(f"  (got {printable(shortened(without_secrets(problem.got)))})", style="dim")
        if problem.hint:
            body.append(f"\n  {printable(problem.hint)}", style="green")
    if error.where:
        body.append(f"\n{printable(error.where)}", style="dim")
    get_console().print(Panel(body, title=Text(error.title), title_align="left", border_style="red"))
