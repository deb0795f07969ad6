"""Stop cleanly: the first signal asks, the loop answers at its next safe point, a second Ctrl-C ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType, TracebackType
from typing import Any

ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
PREEMPTION = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


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
        return 128 + self.signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}; to go on: {self.hint}"


class Stopper:
    """Catches the signals that ask a run to stop, while the `with` block runs.

        with Stopper() as stop:
            for ...:
                if stop.requested:
                    save()
                    stop.hand_over()
                    raise Stopped(stop.signum, "empg train --resume DIR")

    Outside the main thread nothing is caught. A forked child ignores what its parent has installed.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self.signum != 0

    def __enter__(self) -> Stopper:
        for signum in ASKING:
            with contextlib.suppress(ValueError):  # not the main thread
                self._previous[signum] = signal.signal(signum, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)

    def hand_over(self) -> None:
        """After the save: let whoever caught this signal before us do its part (submitit requeues the job)."""
        handler = self._previous.get(self.signum)
        if self.signum in PREEMPTION and callable(handler):
            handler(self.signum, None)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return
        if self.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum
