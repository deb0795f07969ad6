"""Procedural ALFWorld games: the official rooms, random objects, tasks in the official proportions.

Game `index` is a pure function of (split, seed, index). As in the official data, `valid_seen` has the rooms and tasks
of `train` with other placements (another random stream), and `valid_unseen` has four rooms that train never uses.
What lies where, how many copies there are, and which goals exist follow the frequencies of the official games.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from empg_cli.benchmarks.alfworld.game import TOOL_OF, CompiledGame, Goal, Thing, Treatment
from empg_cli.benchmarks.alfworld.tables import interleaved, object_types, room, room_numbers, rules

VERSION = 1
"""Raised whenever the same (split, seed, index) would give another game."""

_TEXTS = {
    "pick_and_place_simple": ("put a {object} in {place}", "put some {object} on {place}"),
    "look_at_obj_in_light": ("look at {object} under the {place}", "examine the {object} with the {place}"),
    "pick_clean_then_place_in_recep": ("put a clean {object} in {place}", "clean some {object} and put it in {place}"),
    "pick_heat_then_place_in_recep": ("put a hot {object} in {place}", "heat some {object} and put it in {place}"),
    "pick_cool_then_place_in_recep": ("put a cool {object} in {place}", "cool some {object} and put it in {place}"),
    "pick_two_obj_and_place": ("put two {object} in {place}", "find two {object} and put them in {place}"),
}
_TREATMENT: dict[str, Treatment] = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "hot",
    "pick_cool_then_place_in_recep": "cool",
}


@dataclass(frozen=True, slots=True)
class GeneratedGame:
    """The name of a generated game; `compile` makes it."""

    split: str
    seed: int
    index: int

    @property
    def name(self) -> str:
        return f"{self.split}/generated-{self.seed}-{self.index:05d}"

    @property
    def kind(self) -> str:
        return kind_of(self.split, self.index)

    def compile(self) -> CompiledGame:
        return generate(self.split, self.seed, self.index)


def kind_of(split: str, index: int) -> str:
    """Task types in the official proportions of the split, evenly interleaved; the pattern repeats."""
    pattern = _kind_pattern(split)
    return pattern[index % len(pattern)]


@cache
def _kind_pattern(split: str) -> tuple[str, ...]:
    return interleaved(rules().split_kinds[split])


def generate(split: str, seed: int, index: int) -> CompiledGame:
    rng = random.Random(f"empg-alfworld/{VERSION}/{split}/{seed}/{index}")
    kind = kind_of(split, index)
    goals, cumulative = _goals(split, kind)
    target, destination, numbers = rng.choices(goals, cum_weights=cumulative)[0]
    number = rng.choice(numbers)
    goal = _goal(kind, target, destination)
    # In the official place and two-object games no copy of the target starts where it should go.
    avoid = destination if goal.treatment is None else None

    placed: list[tuple[str, int]] = []
    for object_type in object_types(number):
        if object_type == target:
            copies, homes = rules().tasks[kind].copies, _homes(number, object_type, avoid)
        else:
            copies, homes = rules().objects[object_type].copies, _homes(number, object_type, None)
        count = rng.choices(range(len(copies)), weights=copies)[0]
        if object_type == goal.lamp_type:
            count = max(count, 1)
        members, weights = homes
        placed += [(object_type, receptacle) for receptacle in rng.choices(members, cum_weights=weights, k=count)]
    text = rng.choice(_TEXTS[kind]).format(object=target, place=destination)
    return CompiledGame(text, goal, room(number), _things(number, placed), rules().can_contain)


def _goal(kind: str, target: str, destination: str) -> Goal:
    if kind == "look_at_obj_in_light":
        return Goal(target, lamp_type=destination)
    count = 2 if kind == "pick_two_obj_and_place" else 1
    return Goal(target, destination, treatment=_TREATMENT.get(kind), count=count)


def _things(number: int, placed: list[tuple[str, int]]) -> tuple[Thing, ...]:
    """`placed` comes grouped by type in listing order, so numbers run downward within each group."""
    receptacles = room(number).receptacles
    left: dict[str, int] = {}
    for object_type, _ in placed:
        left[object_type] = left.get(object_type, 0) + 1
    things = []
    for object_type, receptacle in placed:
        things.append(
            Thing(
                name=f"{object_type} {left[object_type]}",
                type=object_type,
                receptacles=(receptacle,),
                places=(receptacles[receptacle].place,),
                traits=rules().objects[object_type].traits,
            )
        )
        left[object_type] -= 1
    return tuple(things)


@cache
def _goals(split: str, kind: str) -> tuple[list[tuple[str, str, tuple[int, ...]]], list[int]]:
    """The goals that some room of the split allows, with those rooms, and the running sum of their weights."""
    goals = []
    weights = []
    for target, destination, weight in rules().tasks[kind].goals:
        numbers = tuple(n for n in room_numbers(split) if _allows(n, kind, target, destination))
        if numbers:
            goals.append((target, destination, numbers))
            weights.append(weight)
    return goals, list(accumulate(weights))


def _allows(number: int, kind: str, target: str, destination: str) -> bool:
    types = object_types(number)
    furniture = {receptacle.type for receptacle in room(number).receptacles}
    if target not in types:
        return False
    if kind == "look_at_obj_in_light":
        return destination in types
    if destination not in furniture:
        return False
    if kind in _TREATMENT:
        return TOOL_OF[_TREATMENT[kind]][1] in furniture
    return bool(_homes(number, target, destination)[0])


@cache
def _homes(number: int, object_type: str, avoid: str | None) -> tuple[list[int], list[float]]:
    """Receptacles where an object of the type may lie, with the running sum of their weights."""
    receptacles = room(number).receptacles
    rate = rules().objects[object_type].places
    of_type: dict[str, int] = {}
    for receptacle in receptacles:
        of_type[receptacle.type] = of_type.get(receptacle.type, 0) + 1
    members = [i for i, receptacle in enumerate(receptacles) if receptacle.type in rate and receptacle.type != avoid]
    weights = [rate[receptacles[i].type] / of_type[receptacles[i].type] for i in members]
    return members, list(accumulate(weights))
