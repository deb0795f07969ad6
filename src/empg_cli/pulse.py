"""That work goes on: a beat for every turn of an episode and every micro-batch, for whoever watches for silence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Pulse:
    last: float = 0.0
    phase: str = "loading"
    waits: bool = False
    looks: bool = False


_pulse = _Pulse()


def beat() -> None:
    """A piece of work is done, or begins."""
    _pulse.last = time.monotonic()


def silence_s() -> float:
    """Seconds since the last beat."""
    return time.monotonic() - _pulse.last


def enter(phase: str) -> None:
    """From now on the process does this, under a name of `timing_s/`."""
    _pulse.phase = phase


def phase() -> str:
    return _pulse.phase


@contextmanager
def waiting() -> Iterator[None]:
    """Around a wait for other processes: the silence is theirs."""
    if not _pulse.looks:
        beat()
    _pulse.waits = True
    try:
        yield
    finally:
        _pulse.waits = False
        if not _pulse.looks:
            beat()


@contextmanager
def looking() -> Iterator[None]:
    """Around waits for other processes that only ask how far they are, again and again: these are no beats."""
    _pulse.looks = True
    try:
        yield
    finally:
        _pulse.looks = False


def is_waiting() -> bool:
    return _pulse.waits
