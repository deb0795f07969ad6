"""One ALFWorld game as immutable tables, shared by every environment that plays it.

Receptacles and objects are numbered in the order in which ALFWorld lists them (the sort order of their PDDL ids), so
sorting integers gives the engine's order of names. Within a type the numbers in the names run downward: the first id
gets the highest number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Trait = Literal["pickupable", "toggleable", "heatable", "coolable", "cleanable", "sliceable", "container"]
Treatment = Literal["clean", "hot", "cool"]

TOOL_OF: dict[Treatment, tuple[str, str]] = {
    "clean": ("clean", "sinkbasin"),
    "hot": ("heat", "microwave"),
    "cool": ("cool", "fridge"),
}
"""Treatment -> (verb, type of the receptacle that does it)."""

KNIVES = frozenset({"knife", "butterknife"})


@dataclass(frozen=True, slots=True)
class Goal:
    """What wins: `count` objects of a type, treated or not, in one receptacle of a type; or holding one by a lamp."""

    object_type: str
    receptacle_type: str | None = None
    treatment: Treatment | None = None
    count: int = 1
    lamp_type: str | None = None


@dataclass(frozen=True, slots=True)
class Receptacle:
    """Furniture. Receptacles with the same `place` are reached together: the agent stands at all of them."""

    name: str
    type: str
    place: int
    openable: bool = False
    opened: bool = False


@dataclass(frozen=True, slots=True)
class Thing:
    """An object. The official data has objects in two receptacles at once, and some that are in none."""

    name: str
    type: str
    receptacles: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    traits: frozenset[Trait] = frozenset()
    inside: tuple[str, ...] = ()
    """Names of what lies in this object (a pan, a bowl)."""
    states: frozenset[str] = frozenset()
    """What is true at the start, of: clean, hot, cool, on, toggled, sliced, held."""


@dataclass(frozen=True)
class Room:
    """The furniture and where the agent starts; games in one room may share it."""

    receptacles: tuple[Receptacle, ...]
    start: int
    """The place where the agent stands at first."""

    @cached_property
    def receptacles_at(self) -> dict[int, tuple[int, ...]]:
        at: dict[int, list[int]] = {}
        for index, receptacle in enumerate(self.receptacles):
            at.setdefault(receptacle.place, []).append(index)
        return {place: tuple(members) for place, members in at.items()}

    @cached_property
    def travel(self) -> dict[int, dict[str, int]]:
        """place -> {command: receptacle}: `go to` exists for every receptacle that is not already here."""
        places = {receptacle.place for receptacle in self.receptacles} | {self.start}
        return {
            place: {f"go to {r.name}": index for index, r in enumerate(self.receptacles) if r.place != place}
            for place in places
        }

    @cached_property
    def text(self) -> str:
        return (
            "You are in the middle of a room. Looking quickly around you, you see "
            f"{listing('a ' + receptacle.name for receptacle in self.receptacles)}."
        )


@dataclass(frozen=True)
class CompiledGame:
    task: str
    """The goal in words, without the final dot."""
    goal: Goal
    room: Room
    things: tuple[Thing, ...]
    can_contain: frozenset[tuple[str, str]]
    """(receptacle type, object type)."""

    @property
    def receptacles(self) -> tuple[Receptacle, ...]:
        return self.room.receptacles

    @cached_property
    def traits(self) -> dict[Trait, frozenset[int]]:
        every: tuple[Trait, ...] = (
            "pickupable", "toggleable", "heatable", "coolable", "cleanable", "sliceable", "container",
        )  # fmt: skip
        return {trait: frozenset(i for i, thing in enumerate(self.things) if trait in thing.traits) for trait in every}

    @cached_property
    def knives(self) -> frozenset[int]:
        return frozenset(index for index, thing in enumerate(self.things) if thing.type in KNIVES)

    @cached_property
    def targets(self) -> frozenset[int]:
        """Objects of the type that the goal asks for."""
        return frozenset(index for index, thing in enumerate(self.things) if thing.type == self.goal.object_type)

    @cached_property
    def goal_receptacles(self) -> tuple[int, ...]:
        return tuple(index for index, r in enumerate(self.receptacles) if r.type == self.goal.receptacle_type)

    @cached_property
    def goal_lamps(self) -> frozenset[int]:
        lamps = self.traits["toggleable"]
        return frozenset(index for index in lamps if self.things[index].type == self.goal.lamp_type)


def listing(items: Iterable[str]) -> str:
    """`nothing`, `a`, `a, and b`, `a, b, and c`: the grammar's own way, for two items too."""
    words = list(items)
    if not words:
        return "nothing"
    if len(words) == 1:
        return words[0]
    return ", ".join(words[:-1]) + ", and " + words[-1]


def numbered(types: Sequence[str]) -> list[str]:
    """Names of entities given in listing order: the first of n of a type is number n, the last is number 1."""
    left: dict[str, int] = {}
    for kind in types:
        left[kind] = left.get(kind, 0) + 1
    names = []
    for kind in types:
        names.append(f"{kind} {left[kind]}")
        left[kind] -= 1
    return names
