"""How a run that a signal has stopped ends: with an exit code, and the command that goes on."""

from __future__ import annotations

import signal

from empg_cli.signals import exit_code

AGAIN = "the same command once more"
"""To go on, where nothing is saved yet."""


class Stopped(Exception):  # noqa: N818 (no error: the user asked for it)
    """A run ended at a safe point because a signal asked for it.

    An ordinary exception, so that it travels home from a launcher's worker; SystemExit would kill the worker.
    """

    def __init__(self, signum: int, hint: str) -> None:
        super().__init__(signum, hint)
        self.signum = signum
        self.hint = hint
        """The command that goes on."""

    @property
    def exit_code(self) -> int:
        """The shell's convention: 130 after Ctrl-C, 143 after SIGTERM."""
        return exit_code(self.signum)

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}; to go on: {self.hint}"
