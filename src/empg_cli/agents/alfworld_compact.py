"""ALFWorld in a closed vocabulary of whole words, for models far too small to read English.

"You arrive at cabinet 1. The cabinet 1 is closed." becomes `at cabinet_1 closed`, and every prompt repeats what is held
and the goal, which is what lets a small model learn the task at all. Only what the environment has shown is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation

RECEPTACLES = {
    "armchair": 4, "bathtubbasin": 2, "bed": 3, "cabinet": 30, "cart": 2, "coffeemachine": 2, "coffeetable": 3,
    "countertop": 6, "desk": 3, "diningtable": 4, "drawer": 30, "dresser": 3, "fridge": 2, "garbagecan": 2,
    "handtowelholder": 4, "laundryhamper": 2, "microwave": 2, "ottoman": 2, "safe": 2, "shelf": 16, "sidetable": 6,
    "sinkbasin": 2, "sofa": 3, "stoveburner": 8, "toaster": 2, "toilet": 2, "toiletpaperhanger": 2, "towelholder": 3,
    "tvstand": 3,
}  # fmt: skip
"""Receptacle types and the highest number seen of each, in generated and official rooms."""

OBJECTS = [
    "alarmclock", "apple", "baseballbat", "basketball", "blinds", "book", "boots", "bowl", "box", "bread",
    "butterknife", "candle", "cd", "cellphone", "chair", "cloth", "creditcard", "cup", "curtains", "desklamp",
    "dishsponge", "egg", "floorlamp", "footstool", "fork", "glassbottle", "handtowel", "houseplant", "kettle",
    "keychain", "knife", "ladle", "laptop", "laundryhamperlid", "lettuce", "lightswitch", "mirror", "mug",
    "newspaper", "painting", "pan", "papertowelroll", "pen", "pencil", "peppershaker", "pillow", "plate", "plunger",
    "poster", "pot", "potato", "remotecontrol", "saltshaker", "scrubbrush", "showerdoor", "showerglass", "sink",
    "bathtub", "soapbar", "soapbottle", "spatula", "spoon", "spraybottle", "statue", "stoveknob", "teddybear",
    "television", "tennisracket", "tissuebox", "toiletpaper", "tomato", "towel", "vase", "watch", "wateringcan",
    "window", "winebottle",
]  # fmt: skip
COPIES = 8
"""Highest number of an object."""

GOALS = (
    (re.compile(r"(?:clean some (\w+) and put it|put a clean (\w+)) in (\w+)"), "clean"),
    (re.compile(r"(?:heat some (\w+) and put it|put a hot (\w+)) in (\w+)"), "heat"),
    (re.compile(r"(?:cool some (\w+) and put it|put a cool (\w+)) in (\w+)"), "cool"),
    (re.compile(r"(?:find two (\w+) and put them|put two (\w+)) in (\w+)"), "two"),
    (re.compile(r"put (?:a (\w+) in|some (\w+) on) (\w+)"), "place"),
    (re.compile(r"(?:look at (\w+) under|examine the (\w+) with) the (\w+)"), "light"),
)
"""The goal templates; both wordings of a task become the same words."""

ACTIONS = (
    (re.compile(r"go to (\w+ \d+)"), "go", "go to {0}"),
    (re.compile(r"open (\w+ \d+)"), "open", "open {0}"),
    (re.compile(r"close (\w+ \d+)"), "close", "close {0}"),
    (re.compile(r"take (\w+ \d+) from (\w+ \d+)"), "take", "take {0} from {1}"),
    (re.compile(r"move (\w+ \d+) to (\w+ \d+)"), "move", "move {0} to {1}"),
    (re.compile(r"clean (\w+ \d+) with (\w+ \d+)"), "clean", "clean {0} with {1}"),
    (re.compile(r"heat (\w+ \d+) with (\w+ \d+)"), "heat", "heat {0} with {1}"),
    (re.compile(r"cool (\w+ \d+) with (\w+ \d+)"), "cool", "cool {0} with {1}"),
    (re.compile(r"slice (\w+ \d+) with (\w+ \d+)"), "slice", "slice {0} with {1}"),
    (re.compile(r"use (\w+ \d+)"), "use", "use {0}"),
    (re.compile(r"examine (\w+ \d+)"), "examine", "examine {0}"),
    (re.compile(r"look"), "look", "look"),
    (re.compile(r"inventory"), "inventory", "inventory"),
    (re.compile(r"help"), "help", "help"),
)
"""(command, its one-word verb, command template)"""

_EVENTS = (
    (re.compile(r"You pick up the (\w+ \d+)"), "took"),
    (re.compile(r"You move the (\w+ \d+)"), "put"),
    (re.compile(r"You clean the (\w+ \d+)"), "clean"),
    (re.compile(r"You heat the (\w+ \d+)"), "heat"),
    (re.compile(r"You cool the (\w+ \d+)"), "cool"),
    (re.compile(r"You turn on the (\w+ \d+)"), "use"),
)
_STATE_WORDS = [
    "task", "room", "at", "see", "nothing", "open", "closed", "refused", "other", "took", "put", "hold", "none",
    "want", ".", "<act>",
]  # fmt: skip
_THING = re.compile(r"a (\w+) (\d+)")


def vocabulary() -> list[str]:
    """Every word of this form, in a fixed order."""
    verbs = [verb for _, verb, _ in ACTIONS]
    kinds = [kind for _, kind in GOALS]
    words = [*_STATE_WORDS, *verbs, *kinds, *RECEPTACLES, *OBJECTS]
    words += [f"{name}_{number}" for name, most in RECEPTACLES.items() for number in range(1, most + 1)]
    words += [f"{name}_{number}" for name in OBJECTS for number in range(1, COPIES + 1)]
    return list(dict.fromkeys(words))


class AlfworldCompact:
    def __init__(self) -> None:
        self._task = self._room = ""
        self._place = "room"
        self._held: list[str] = []
        self._treated: dict[str, str] = {}

    def opening(self, observation: Observation) -> str:
        text = observation.text
        self._task = goal_words(text.partition("Your task is to: ")[2])
        self._room = " ".join(_things(text))
        return f"task {self._task} room {self._room} {self._state()}"

    def turn(self, action: str, observation: Observation) -> str:
        return f"{self._event(observation.text)} {self._state()}"

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        lines = [f"{event} <act> {self.phrase(action)}" for event, action in _pairs(past)]
        return " ".join([f"task {self._task} room {self._room}", *lines, self.turn("", observation)])

    def parse(self, response: str) -> Parsed:
        verb, *words = response.split() or [""]
        things = [word.replace("_", " ") for word in words]
        for pattern, name, template in ACTIONS:
            if name == verb and template.count("{") == len(things):
                command = template.format(*things)
                return Parsed(command, well_formed=pattern.fullmatch(command) is not None)
        return Parsed(response.replace("_", " ").strip(), well_formed=False)

    def phrase(self, action: str) -> str:
        for pattern, verb, _ in ACTIONS:
            if match := pattern.fullmatch(action):
                return " ".join([verb, *(thing.replace(" ", "_") for thing in match.groups())])
        return action

    def _event(self, text: str) -> str:
        """The feedback in our words; also notes what is held, what it has become, and where the agent stands."""
        if text == "Nothing happens.":
            return f"at {self._place} refused"
        for pattern, word in _EVENTS:
            if match := pattern.match(text):
                thing = match[1].replace(" ", "_")
                if word == "took":
                    self._held.append(thing)
                elif word == "put":
                    self._held = [held for held in self._held if held != thing]
                elif word != "use":
                    self._treated[thing] = word
                return f"at {self._place} {word} {thing}"
        if match := re.match(r"You arrive at (\w+ \d+)", text):
            self._place = match[1].replace(" ", "_")
        return f"at {self._place} {_view(text)}"

    def _state(self) -> str:
        held = " ".join(f"{thing} {self._treated[thing]}" if thing in self._treated else thing for thing in self._held)
        return f"hold {held or 'none'} want {self._task}"


def goal_words(goal: str) -> str:
    """`put a hot apple in fridge.` -> `heat apple fridge`."""
    for pattern, kind in GOALS:
        if match := pattern.match(goal):
            return " ".join([kind, *(word for word in match.groups() if word)])
    raise ValueError(f"unknown ALFWorld goal: {goal!r}")


def _view(text: str) -> str:
    """What a receptacle shows: closed, or what is seen in or on it."""
    if "is closed." in text:
        return "closed"
    if "you see" in text:
        return " ".join(["see", *(_things(text.rpartition("you see")[2]) or ["nothing"])])
    return "closed" if text.startswith("You close") else "other"


def _things(text: str) -> list[str]:
    return [f"{name}_{number}" for name, number in _THING.findall(text)]


def _pairs(past: Sequence[Exchange]) -> Iterator[tuple[str, str]]:
    for exchange in past:
        match = re.match(r"You arrive at (\w+ \d+)", exchange.observation)
        place = f"at {match[1].replace(' ', '_')} " if match else ""
        yield f"{place}{_view(exchange.observation)}", exchange.action
