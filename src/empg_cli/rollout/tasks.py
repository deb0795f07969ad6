"""Which training tasks an update plays: an endless stream that shuffles the split anew each time round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from empg_cli.types import Task

_STREAM = 1
"""Keeps this use of the seed apart from others."""


def training_tasks(tasks: Sequence[Task], start: int, count: int, *, seed: int) -> list[Task]:
    """Tasks `start` .. `start + count` of the stream; a pure function, so a run can resume anywhere."""
    positions = range(start, start + count)
    orders = {epoch: _order(len(tasks), seed, epoch) for epoch in {position // len(tasks) for position in positions}}
    return [tasks[int(orders[position // len(tasks)][position % len(tasks)])] for position in positions]


def _order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence([_STREAM, seed, epoch])).permutation(size)
