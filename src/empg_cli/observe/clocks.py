"""Where the time of an update goes: the values of `timing_s/` and `perf/`."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clocks:
    def __init__(self, tokens: int = 0) -> None:
        """tokens: sampled before this process."""
        self._started = self._last_row = time.perf_counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._tokens = tokens

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to `timing_s/<name>` of the next row."""
        start = time.perf_counter()
        yield
        self._seconds[f"timing_s/{name}"] += time.perf_counter() - start

    def row(self, tokens: int) -> dict[str, float]:
        """What was measured since the row before.

        Args:
            tokens: sampled since the run began.
        """
        now = time.perf_counter()
        seconds, self._last_row = now - self._last_row, now
        sampled, self._tokens = tokens - self._tokens, tokens
        row = {
            **self._seconds,
            "perf/time_per_step": seconds,
            "perf/throughput": sampled / seconds,
            "perf/mem_gb": peak_memory_gb(),
        }
        self._seconds.clear()
        return row

    def elapsed_s(self) -> float:
        """Seconds of this process's part of the run."""
        return time.perf_counter() - self._started


def peak_memory_gb() -> float:
    """Largest memory this process has held: of the GPU if there is one, else of the process, in GB (1e9 bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
