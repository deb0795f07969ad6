"""The shipped tables (rooms.json, rules.json; see scripts/build_alfworld_tables.py for what they hold)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from empg_cli.benchmarks.alfworld.game import Receptacle, Room, Trait, numbered

KINDS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
SPLITS = ("train", "valid_seen", "valid_unseen")


def interleaved(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Each key as often as it counts, evenly mixed: any prefix is within one or two of the exact proportions.

    Smooth weighted round robin.
    """
    total = sum(counts.values())
    credit = dict.fromkeys(counts, 0)
    order = []
    for _ in range(total):
        for key, count in counts.items():
            credit[key] += count
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        order.append(chosen)
    return tuple(order)


def table_bytes(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


@dataclass(frozen=True, slots=True)
class ObjectRule:
    traits: frozenset[Trait]
    copies: tuple[int, ...]
    """Weight of 0, 1, 2, ... copies in a room that may hold the type."""
    places: dict[str, int]
    """Receptacle type -> per mille of the objects of this type that lie there, where there is one."""


@dataclass(frozen=True, slots=True)
class TaskRule:
    goals: tuple[tuple[str, str, int], ...]
    """(object type, receptacle or lamp type, weight)."""
    copies: tuple[int, ...]
    """Weight of 0, 1, 2, ... copies of the target."""


@dataclass(frozen=True)
class Rules:
    objects: dict[str, ObjectRule]
    can_contain: frozenset[tuple[str, str]]
    tasks: dict[str, TaskRule]
    split_kinds: dict[str, dict[str, int]]
    unseen_rooms: frozenset[int]


@cache
def rules() -> Rules:
    raw: dict[str, Any] = json.loads(table_bytes("rules.json"))
    return Rules(
        objects={
            name: ObjectRule(frozenset(rule["traits"]), tuple(rule["copies"]), rule["places"])
            for name, rule in raw["objects"].items()
        },
        can_contain=frozenset((place, thing) for place, things in raw["can_contain"].items() for thing in things),
        tasks={
            kind: TaskRule(tuple((o, r, n) for o, r, n in rule["goals"]), tuple(rule["copies"]))
            for kind, rule in raw["tasks"].items()
        },
        split_kinds=raw["splits"],
        unseen_rooms=frozenset(raw["unseen_rooms"]),
    )


@cache
def _raw_rooms() -> dict[int, Any]:
    return {int(number): row for number, row in json.loads(table_bytes("rooms.json")).items()}


def room_numbers(split: str) -> tuple[int, ...]:
    """valid_unseen plays four rooms that the other splits never use."""
    unseen = rules().unseen_rooms
    return tuple(number for number in _raw_rooms() if (number in unseen) == (split == "valid_unseen"))


@cache
def room(number: int) -> Room:
    rows = _raw_rooms()[number]["receptacles"]
    names = numbered([kind for kind, _, _ in rows])
    receptacles = tuple(
        Receptacle(name, kind, place, bool(openable)) for name, (kind, place, openable) in zip(names, rows, strict=True)
    )
    return Room(receptacles, start=1 + max(place for _, place, _ in rows))


@cache
def object_types(number: int) -> tuple[str, ...]:
    """Types that may lie in a receptacle of the room, in listing order."""
    return tuple(sorted(_raw_rooms()[number]["objects"], key=lambda name: name + "_"))
