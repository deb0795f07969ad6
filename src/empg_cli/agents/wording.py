"""What a benchmark says to a model, and how the model's answer becomes an action: text only, no tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from empg_cli.benchmarks.base import Observation


@dataclass(frozen=True, slots=True)
class Parsed:
    action: str
    """What the environment gets; malformed answers are passed on too, as the benchmarks' own agents do."""
    well_formed: bool
    """The answer had the form that the prompt asks for."""
    surplus: int | None = None
    """Characters after the action, which leave context and training; the answer is then complete whether or not the
    model ended its turn. None = all of it stays."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One past step, as a later prompt repeats it."""

    observation: str
    action: str


Form = Literal["compact", "chat"]


class Wording(Protocol):
    """The texts of one benchmark in one form. One object per trajectory: it may remember what it was shown."""

    def opening(self, observation: Observation) -> str:
        """The prompt of the first step."""
        ...

    def turn(self, action: str, observation: Observation) -> str:
        """What a transcript appends after an action."""
        ...

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        """A whole prompt for a later step: the task, the last exchanges, the present observation."""
        ...

    def parse(self, response: str) -> Parsed: ...

    def phrase(self, action: str) -> str:
        """The response that stands for this action (demonstrations); inverse of `parse`."""
        ...


@runtime_checkable
class BringsWordings(Protocol):
    """A benchmark from outside that says things in its own way; without this, agents/plain.py does."""

    def wording(self, form: Form) -> Callable[[], Wording] | None:
        """What makes the wording of an episode; None = the plain one."""
        ...


@runtime_checkable
class BringsVocabulary(Protocol):
    """A benchmark from outside that a tiny model can be made for: `model=tiny-scratch`."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """Every word of its compact wording, in a fixed order."""
        ...
