"""That work goes on: a beat for every turn of an episode and every micro-batch, for whoever watches for silence."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class _Pulse:
    last: float = 0.0


_pulse = _Pulse()


def beat() -> None:
    """A piece of work is done, or begins."""
    _pulse.last = time.monotonic()


def silence_s() -> float:
    """Seconds since the last beat."""
    return time.monotonic() - _pulse.last
