"""What is fuzzed: a strategy of inputs, and a function that may return or raise what a user is told, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy


class Wrong(Exception):  # noqa: N818 (a promise that was not kept)
    """Something was read that is not what was written, and nobody said so."""


@dataclass(frozen=True, slots=True)
class Target:
    inputs: SearchStrategy[Any]
    run: Callable[[Any], object]
    seconds: float = 2.0
    """CPU seconds that one input may take."""


MakeTarget = Callable[[Path], Target]
"""Called with an empty folder of its own, in the process that fuzzes."""
