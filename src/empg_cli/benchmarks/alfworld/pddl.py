"""Reading an official game (the JSON object of a `game.tw-pddl` file) into a `CompiledGame`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from empg_cli.benchmarks.alfworld.game import CompiledGame, Goal, Receptacle, Room, Thing, Trait, Treatment
from empg_cli.benchmarks.base import DataError

_COMMENT = re.compile(r";[^\n]*")
_ATOM = re.compile(r"\(([^()]+)\)")
_TASK = "Your task is to: "
MOST_PARTS = 1000
"""Receptacles, and objects, of a room; official ones have at most 54 and 73. Travel takes their number squared."""

_TRAIT_FACTS: dict[str, Trait] = {
    "pickupable": "pickupable",
    "toggleable": "toggleable",
    "heatable": "heatable",
    "coolable": "coolable",
    "cleanable": "cleanable",
    "sliceable": "sliceable",
    "isreceptacleobject": "container",
}
_STATE_FACTS = {
    "isclean": "clean",
    "ishot": "hot",
    "iscool": "cool",
    "ison": "on",
    "istoggled": "toggled",
    "issliced": "sliced",
}
_TREATMENT_ATOMS: dict[str, Treatment] = {"isclean": "clean", "ishot": "hot", "iscool": "cool"}

_ARGUMENTS = {
    **dict.fromkeys(_TRAIT_FACTS, 1),
    **dict.fromkeys(_STATE_FACTS, 1),
    **dict.fromkeys(("openable", "opened"), 1),
    **dict.fromkeys(("atlocation", "receptacleatlocation", "receptacletype", "objecttype", "objectatlocation"), 2),
    **dict.fromkeys(("inreceptacle", "inreceptacleobject", "holds", "cancontain"), 2),
}
"""How many arguments the facts have that are read here."""

Facts = dict[str, list[tuple[str, ...]]]


def parse_game(game: Mapping[str, Any]) -> CompiledGame:
    """Raises DataError (without a file name: the caller knows it) when something needed is missing."""
    return parse_problem(_text_of(game, "pddl_problem"), task_line(game))


def task_line(game: Mapping[str, Any]) -> str:
    """The goal in words. It stands only in the text grammar."""
    for line in _text_of(game, "grammar").split("\n"):
        start = line.find(_TASK)
        end = line.find('."', start)
        if 0 <= start < end:
            return line[start + len(_TASK) : end]
    raise DataError('the grammar holds no "Your task is to: ..." line')


def _text_of(game: Mapping[str, Any], key: str) -> str:
    if not isinstance(game, Mapping):
        raise DataError(f"a JSON {type(game).__name__}, not a game")
    value = game.get(key)
    if not isinstance(value, str):
        raise DataError(f"the key {key!r} is missing or not text")
    return value


def parse_problem(problem: str, task: str) -> CompiledGame:
    text = _COMMENT.sub("", problem).lower()
    init, goal = text.find("(:init"), text.find("(:goal")
    if not 0 <= init < goal:
        raise DataError("the PDDL problem has no (:init ...) followed by a (:goal ...)")
    facts: Facts = {}
    for predicate, *arguments in _atoms(text, init, goal):
        facts.setdefault(predicate, []).append(tuple(arguments))
    return _compile(facts, _parse_goal(_atoms(text, goal, len(text))), task)


def _atoms(text: str, start: int, end: int) -> list[tuple[str, ...]]:
    """(predicate, argument, ...) of all innermost brackets."""
    atoms = []
    for match in _ATOM.finditer(text, start, end):
        atom = tuple(match[1].split())
        wanted = _ARGUMENTS.get(atom[0]) if atom else 1
        if wanted is not None and len(atom) != wanted + 1:
            line = text.count("\n", 0, match.start()) + 1
            raise DataError(f"the PDDL problem, line {line}: ({match[1][:80]}) needs {wanted} arguments")
        atoms.append(atom)
    return atoms


def _parse_goal(atoms: list[tuple[str, ...]]) -> Goal:
    """ALFWorld's goals come from a handful of templates; their atoms tell all (the nesting adds nothing)."""
    lamps = {atom[1] for atom in atoms if atom[0] == "istoggled"}
    held = {atom[2] for atom in atoms if atom[0] == "holds"}
    types = {atom[1]: _short(atom[2]) for atom in atoms if atom[0] == "objecttype"}
    receptacle_types = [_short(atom[2]) for atom in atoms if atom[0] == "receptacletype"]
    treatments = [_TREATMENT_ATOMS[atom[0]] for atom in atoms if atom[0] in _TREATMENT_ATOMS]
    if lamps and held:
        lamp, target = types.get(min(lamps)), types.get(min(held))
        if lamp and target:
            return Goal(target, lamp_type=lamp)
    elif types and len(set(types.values())) == 1 and receptacle_types:
        return Goal(
            object_type=next(iter(types.values())),
            receptacle_type=receptacle_types[0],
            treatment=treatments[0] if treatments else None,
            count=2 if any(atom[0] == "=" for atom in atoms) else 1,
        )
    raise DataError("the PDDL goal is none of ALFWorld's six task types")


def _compile(facts: Facts, goal: Goal, task: str) -> CompiledGame:
    def unary(predicate: str) -> set[str]:
        return {fact[0] for fact in facts.get(predicate, ())}

    name_of = _names({argument for group in facts.values() for fact in group for argument in fact})
    location_of = {fact[0]: fact[1] for fact in facts.get("receptacleatlocation", ())}
    type_of = {fact[0]: _short(fact[1]) for fact in facts.get("receptacletype", ())}
    object_type_of = {fact[0]: _short(fact[1]) for fact in facts.get("objecttype", ())}
    if "atlocation" not in facts or not location_of or not object_type_of:
        raise DataError("the PDDL problem lacks the agent's location, the receptacles or the objects")
    if max(len(location_of), len(object_type_of)) > MOST_PARTS:
        raise DataError(f"a room of {len(location_of)} receptacles and {len(object_type_of)} objects is none")
    start = facts["atlocation"][0][1]

    location_facts = [fact[1] for fact in facts.get("objectatlocation", ())]
    place_of = {loc: index for index, loc in enumerate(sorted({*location_of.values(), start, *location_facts}))}
    openable, opened = unary("openable"), unary("opened")
    receptacle_ids = sorted(location_of)
    receptacles = tuple(
        Receptacle(name_of[r], type_of.get(r, ""), place_of[location_of[r]], r in openable, r in opened)
        for r in receptacle_ids
    )

    index_of = {r: index for index, r in enumerate(receptacle_ids)}
    within: dict[str, set[int]] = {}
    for thing, receptacle in facts.get("inreceptacle", ()):
        if receptacle not in index_of:
            raise DataError(f"{thing} is in {receptacle}, which stands nowhere")
        within.setdefault(thing, set()).add(index_of[receptacle])
    places: dict[str, set[int]] = {}
    for thing, location in facts.get("objectatlocation", ()):
        places.setdefault(thing, set()).add(place_of[location])
    inside: dict[str, list[str]] = {}
    for thing, container in sorted(facts.get("inreceptacleobject", ())):
        inside.setdefault(container, []).append(name_of[thing])

    traits = {trait: unary(predicate) for predicate, trait in _TRAIT_FACTS.items()}
    states = {state: unary(predicate) for predicate, state in _STATE_FACTS.items()}
    states["held"] = {fact[1] for fact in facts.get("holds", ())}
    things = tuple(
        Thing(
            name=name_of[thing],
            type=object_type_of[thing],
            receptacles=tuple(sorted(within.get(thing, ()))),
            places=tuple(sorted(places.get(thing, ()))),
            traits=frozenset(trait for trait, members in traits.items() if thing in members),
            inside=tuple(inside.get(thing, ())),
            states=frozenset(state for state, members in states.items() if thing in members),
        )
        for thing in sorted(object_type_of)
    )
    can_contain = frozenset((_short(fact[0]), _short(fact[1])) for fact in facts.get("cancontain", ()))
    return CompiledGame(task, goal, Room(receptacles, place_of[start]), things, can_contain)


def _names(ids: set[str]) -> dict[str, str]:
    """ALFWorld's display names. Basins are named after the basin although their id begins with the sink."""
    ordered = sorted(i for i in ids if "_bar_" in i)
    bases = [i.split("_bar_", 1)[0] + ("basin" if "basin" in i else "") for i in ordered]
    left: dict[str, int] = {}
    for base in bases:
        left[base] = left.get(base, 0) + 1
    names = {i: i for i in ids}
    for i, base in zip(ordered, bases, strict=True):
        names[i] = f"{base} {left[base]}"
        left[base] -= 1
    return names


def _short(pddl_type: str) -> str:
    return pddl_type.removesuffix("type")
