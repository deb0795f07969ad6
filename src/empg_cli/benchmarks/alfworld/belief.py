"""What an agent knows about a room, kept from the texts alone."""

from __future__ import annotations

import re

from empg_cli.benchmarks.alfworld.engine import REFUSED

_NAME = r"([a-z]+ \d+)"
_ROOM = re.compile(r"Looking quickly around you, you see (.*?)\.")
_TASK = re.compile(r"Your task is to: (.*)\.\s*$")
_ARRIVE = re.compile(rf"You arrive at {_NAME}\.")
_SURFACE = re.compile(rf"On the {_NAME}, you see (.*?)\.")
_OPEN = re.compile(rf"The {_NAME} is open\. In it, you see (.*?)\.")
_SHUT = re.compile(rf"(?:The {_NAME} is closed|You close the {_NAME})\.")
_TAKE = re.compile(rf"You pick up the {_NAME} from the {_NAME}\.")
_PUT = re.compile(rf"You move the {_NAME} to the {_NAME}\.")
_TREAT = re.compile(rf"You (clean|heat|cool) the {_NAME} using the {_NAME}\.")
_LAMP_ON = re.compile(rf"You turn on the {_NAME}\.")
_CARRYING = re.compile(r"You are carrying: (.*?)\.")
_FACING = re.compile(r"You are facing the (.*?)\. Next to it")
_LOOKS = re.compile(rf"This is a (hot|cold|clean|hot and clean|cool and clean) {_NAME}\.")
_THING = re.compile(r"[a-z]+ \d+")

_STATES_OF_WORDS = {
    "hot": {"hot"},
    "cold": {"cool"},
    "clean": {"clean"},
    "hot and clean": {"hot", "clean"},
    "cool and clean": {"cool", "clean"},
}


def type_of(name: str) -> str:
    return name.split(" ", 1)[0]


class Belief:
    """Told every (action, answer) in order; the order of the actions and who chose them does not matter."""

    def __init__(self, opening: str) -> None:
        task, room = _TASK.search(opening), _ROOM.search(opening)
        if task is None:
            raise ValueError("the first observation holds no 'Your task is to: ...' line")
        self.task = task.group(1)
        self.receptacles: list[str] = _THING.findall(room.group(1)) if room else []
        """In the order in which the room text lists them."""
        self.contents: dict[str, list[str]] = {}
        """Receptacles that have been looked into, and what is in them now."""
        self.shut: dict[str, bool] = {}
        """Receptacles known to be openable: closed or not."""
        self.held: str | None = None
        self.states: dict[str, set[str]] = {}
        """Object -> clean, hot, cool."""
        self.lit: set[str] = set()
        self.refused: set[str] = set()
        """Commands refused since something last changed."""
        self.at: str | None = None
        """A receptacle where the agent stands."""
        self._same_place: dict[str, set[str]] = {}

    def is_here(self, receptacle: str) -> bool:
        return self.at is not None and receptacle in self._neighbours(self.at)

    def observe(self, action: str, text: str) -> None:
        if text == REFUSED:
            self._learn_refusal(action.strip())
            return
        if not action.strip().startswith(("look", "inventory", "examine", "help")):
            self.refused.clear()
        if found := _ARRIVE.search(text):
            self.at = found.group(1)
        if found := _SURFACE.search(text):
            self.contents[found.group(1)] = _THING.findall(found.group(2))
        elif found := _OPEN.search(text):
            self.contents[found.group(1)] = _THING.findall(found.group(2))
            self.shut[found.group(1)] = False
        elif found := _SHUT.search(text):
            self.shut[found.group(1) or found.group(2)] = True
        elif found := _TAKE.search(text):
            thing, receptacle = found.groups()
            self._forget_place_of(thing)
            self.held = thing
        elif found := _PUT.search(text):
            thing, receptacle = found.groups()
            self._forget_place_of(thing)
            self.contents.setdefault(receptacle, []).append(thing)
            self.held = None
        elif found := _TREAT.search(text):
            self._learn_treatment(found.group(1), found.group(2))
        elif found := _LAMP_ON.search(text):
            self.lit.add(found.group(1))
        elif found := _CARRYING.search(text):
            self.held = _THING.findall(found.group(1))[0]
        elif found := _FACING.search(text):
            facing = _THING.findall(found.group(1))
            self.at = facing[0]
            self._join(facing)
        elif found := _LOOKS.search(text):
            self.states[found.group(2)] = set(_STATES_OF_WORDS[found.group(1)])

    def forget_contents(self) -> None:
        """Everything was looked into in vain: look again."""
        self.contents.clear()

    def _forget_place_of(self, thing: str) -> None:
        for things in self.contents.values():
            if thing in things:
                things.remove(thing)

    def _learn_treatment(self, verb: str, thing: str) -> None:
        states = self.states.setdefault(thing, set())
        if verb == "clean":
            states.add("clean")
        else:
            states.difference_update({"hot", "cool"})
            states.add("hot" if verb == "heat" else "cool")

    def _learn_refusal(self, action: str) -> None:
        self.refused.add(action)
        destination = action.removeprefix("go to ")
        if action.startswith("go to ") and destination in self.receptacles:
            # The engine has no `go to` for what is already here.
            self._join([self.at or destination, destination])
            self.at = self.at or destination

    def _neighbours(self, receptacle: str) -> set[str]:
        return self._same_place.get(receptacle, {receptacle})

    def _join(self, receptacles: list[str]) -> None:
        together = set().union(*(self._neighbours(receptacle) for receptacle in receptacles))
        for receptacle in together:
            self._same_place[receptacle] = together
