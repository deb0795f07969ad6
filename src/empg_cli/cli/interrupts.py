"""Signals for work without safe points: it is left where it is, and cleans up behind itself."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from empg_cli.observe.stop import Stopped

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """While the block runs, Ctrl-C, SIGTERM and SIGHUP raise `Stopped` in it.

    Args:
        hint: the command that goes on.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum, hint)

    with handled_by(stop, ENDING):
        yield


@contextlib.contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None], signums: Iterable[int]) -> Iterator[None]:
    """In the main thread of this process, not in its forks. What `nohup` has set to be ignored stays so."""
    mine = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == mine:
            handler(signum, frame)

    before = {}
    for signum in dict.fromkeys(signums):
        if not (signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN):
            with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
                before[signum] = signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier if earlier is not None else signal.SIG_DFL)
