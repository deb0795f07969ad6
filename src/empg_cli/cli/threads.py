"""Which `trainer.threads` suits this machine as busy as it is now: matrix products of a small step, timed both ways.

More threads are no gift: on two cores that other work shared, two OpenMP threads were 3 to 30 times slower than one.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 5
BUDGET_S = 0.3
"""Measuring ends after the round that passes this, in CPU or in wall time; on a crowded machine that is the first."""
LARGE = 1024
"""Rows and columns of a product that tells a machine's speed."""
WORTHWHILE = 1.25
"""How many times faster all threads must be to be advised."""


@dataclass(frozen=True, slots=True)
class ThreadSpeed:
    one_s: float
    """Median wall seconds of a step on one thread."""
    all_s: float
    threads: int

    @property
    def advised(self) -> int:
        return self.threads if self.one_s > WORTHWHILE * self.all_s else 1


def measure_threads(threads: int) -> ThreadSpeed:
    """Time one thread and `threads` in turn; torch's own setting is restored."""
    width, mlp = 128, 384  # a tiny agent's; 64 rows are sampled at once, 1024 tokens learned from at once
    weight, sampled, learned = torch.randn(width, mlp), torch.randn(64, width), torch.randn(1024, width)
    before, cpu, wall = torch.get_num_threads(), time.process_time(), time.perf_counter()
    seconds: dict[int, list[float]] = {1: [], threads: []}
    try:
        for _ in range(ROUNDS):
            for count, taken in seconds.items():
                torch.set_num_threads(count)
                taken.append(_step(weight, sampled, learned))
            if max(time.process_time() - cpu, time.perf_counter() - wall) > BUDGET_S:
                break
    finally:
        torch.set_num_threads(before)
    return ThreadSpeed(statistics.median(seconds[1]), statistics.median(seconds[threads]), threads)


def measured_flops(threads: int) -> float:
    """Of large float32 products, as fast as this machine makes them now.

    Args:
        threads: as in `trainer.threads`; 0 = torch's own choice.
    """
    before = torch.get_num_threads()
    left, right = torch.randn(LARGE, LARGE), torch.randn(LARGE, LARGE)
    seconds = []
    try:
        if threads:
            torch.set_num_threads(threads)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            left @ right
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2 * LARGE**3 / min(seconds)


def _step(weight: Tensor, sampled: Tensor, learned: Tensor) -> float:
    start = time.perf_counter()
    for _ in range(8):
        sampled @ weight
    learned @ weight
    return time.perf_counter() - start
