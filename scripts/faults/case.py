"""What a fault case is made of: one promise, broken on purpose, and the command line that has to keep it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts.faults.process import Finished


class Lost(Exception):  # noqa: N818 (what a table counts)
    """A promise that was not kept: what is gone, wrong, doubled or unsaid."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault, and what must hold afterwards."""

    name: str
    run: Callable[[Path], object]
    """Called with an empty folder of its own; raises `Lost`. Everything it starts with `process.empg` or
    `process.forked` is watched for tracebacks by the table."""


class Group(Protocol):
    """A module of cases, `scripts/faults/NAME.py`."""

    def cases(self, shared: Path, random_numbers: random.Random) -> Iterator[Case]:
        """Args:
        shared: a folder that all cases of the group may use, for a straight run to compare with, say.
        random_numbers: the moments and mutations; the same seed makes the same cases.
        """
        ...


def check(holds: bool, otherwise: str) -> None:
    """Raises `Lost` with this sentence where it does not hold."""
    if not holds:
        raise Lost(otherwise)


def refused(finished: Finished, *words: str) -> None:
    """The command ended with exit code 2 and one message that has these words in it."""
    check(finished.code == 2, f"exit code {finished.code}, not 2, from {finished}")
    for word in words:
        check(word in finished.output, f"nothing said about {word!r} by {finished}")


def succeeded(finished: Finished) -> None:
    check(finished.code == 0, f"exit code {finished.code} from {finished}")


def differences(straight: Sequence[object], other: Sequence[object]) -> str:
    """Where two lists part, in a sentence; empty where they do not."""
    if len(straight) != len(other):
        return f"{len(other)} entries, not {len(straight)}"
    for number, (left, right) in enumerate(zip(straight, other, strict=True)):
        if left != right:
            return f"entry {number} is {right!r}, not {left!r}"
    return ""
