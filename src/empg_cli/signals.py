"""The signals that ask the program to end, and when they are obeyed: at once, or where the work at hand is whole.

Outside of `held` blocks a signal raises `Interrupted` where it arrives, as Ctrl-C does in any Python program. Inside
one it waits for the next `obey`, which stands between two pieces of work, or for the end of the block. A second Ctrl-C
ends the process on the spot: no file is touched any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

ASKING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows lacks some
)
PREEMPTION = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
REDELIVERY_S = 0.02
SHOW_CURSOR = b"\x1b[?25h\n"


class Interrupted(KeyboardInterrupt):
    """A signal asked to end. A KeyboardInterrupt, which other people's code lets pass, whichever signal it was."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def exit_code(signum: int) -> int:
    """The shell's convention: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + signum


@dataclass(slots=True)
class _Asked:
    """A process has one set of handlers, so this is one for the process."""

    signum: int = 0
    """The first signal; 0 = none."""
    holds: int = 0
    catchers: int = 0
    pid: int = 0
    is_again: bool = False
    """The next signal is the first one once more."""
    before_us: dict[int, Any] = field(default_factory=dict)


_asked = _Asked()


def asked() -> int:
    """The signal that asked to end; 0 = none has."""
    return _asked.signum


def obey() -> None:
    """A safe point: raises Interrupted here if a signal has asked to end."""
    if _asked.signum:
        raise Interrupted(_asked.signum)


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """While the block runs, the signals of `ASKING` are caught. Blocks may nest; outside of the main thread nothing is
    caught. A SIGHUP that is ignored stays so (nohup), and a forked child ignores what its parent has installed."""
    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    _asked.pid = os.getpid()
    _asked.catchers += 1
    try:
        for signum in ASKING if threading.current_thread() is threading.main_thread() else ():
            handler = signal.getsignal(signum)
            if handler is signal.SIG_IGN and signum == getattr(signal, "SIGHUP", None):
                continue
            before[signum] = handler
            if handler is not _ask:
                _asked.before_us[signum] = handler
                signal.signal(signum, _ask)
        sys.unraisablehook = _deliver_again_after(hook)
        yield
    finally:
        _asked.catchers -= 1
        if not _asked.catchers:
            _asked.signum = 0
        sys.unraisablehook = hook
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Signals wait while the block runs: for its next `obey`, or for its end, where what came meanwhile is raised."""
    before = _asked.signum
    _asked.holds += 1
    try:
        yield
    finally:
        _asked.holds -= 1
    if not (_asked.holds or before):
        obey()


def hand_over() -> None:
    """After a save: let whoever caught this signal before us do its part (submitit requeues the job)."""
    handler = _asked.before_us.get(_asked.signum)
    if _asked.signum in PREEMPTION and callable(handler):
        handler(_asked.signum, None)


def end_at_once_from_now() -> None:
    """For the last steps of a process, where nothing is left that a signal could spoil."""
    if threading.current_thread() is threading.main_thread():
        for signum in ASKING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, lambda signum, _: os._exit(exit_code(signum)))


def _ask(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _asked.pid:
        return
    if _asked.signum and not _asked.is_again:
        if signum == signal.SIGINT:
            _end_at_once()
        return
    _asked.signum, _asked.is_again = _asked.signum or signum, False
    if not _asked.holds:
        raise Interrupted(_asked.signum)


def _end_at_once() -> None:
    with contextlib.suppress(OSError):
        if os.isatty(2):  # the panel hides it
            os.write(2, SHOW_CURSOR)
    os._exit(exit_code(signal.SIGINT))


def _deliver_again_after(hook: Any) -> Any:
    """A signal that arrives in a finaliser or in a callback of the import system is raised there and lost: Python
    prints it and goes on. It comes again a moment later instead."""

    def unraisable(lost: Any) -> None:
        if not isinstance(lost.exc_value, Interrupted):
            hook(lost)
            return
        _asked.is_again = True
        again = threading.Timer(REDELIVERY_S, os.kill, (os.getpid(), lost.exc_value.signum))
        again.daemon = True
        again.start()

    return unraisable
