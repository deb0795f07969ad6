"""An expert that sees only what an agent sees: it looks into receptacles, likely ones first, until it can act."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Literal

from empg_cli.benchmarks.alfworld.belief import Belief, type_of
from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.game import TOOL_OF, Goal, Treatment
from empg_cli.benchmarks.alfworld.tables import rules

CLOSED_RANK = {"fridge": 1, "microwave": 1, "safe": 1, "cabinet": 2, "drawer": 2}
"""Common sense: what usually has to be opened is dearer to look into; rooms have one fridge but many drawers."""
RARE = 10
"""Per mille; an object type is not expected where less than this of it lies."""

_TREATMENT_WORDS: dict[str, Treatment] = {"clean": "clean", "hot": "hot", "heat": "hot", "cool": "cool"}
_GOAL_TEXTS = (
    re.compile(r"(?P<two>put two) (?P<object>\w+) in (?P<place>\w+)$"),
    re.compile(r"(?P<two>find two) (?P<object>\w+) and put them in (?P<place>\w+)$"),
    re.compile(r"put an? (?P<how>clean|hot|cool) (?P<object>\w+) in (?P<place>\w+)$"),
    re.compile(r"(?P<how>clean|heat|cool) some (?P<object>\w+) and put it in (?P<place>\w+)$"),
    re.compile(r"put (?:an?|some) (?P<object>\w+) (?:in|on) (?P<place>\w+)$"),
    re.compile(r"look at (?P<object>\w+) under the (?P<lamp>\w+)$"),
    re.compile(r"examine the (?P<object>\w+) with the (?P<lamp>\w+)$"),
)


def read_goal(task: str) -> Goal:
    """The goal from the task line, e.g. `put a clean plate in countertop`."""
    for pattern in _GOAL_TEXTS:
        if found := pattern.match(task):
            groups = found.groupdict()
            how = groups.get("how")
            return Goal(
                object_type=groups["object"],
                receptacle_type=groups.get("place"),
                treatment=_TREATMENT_WORDS[how] if how else None,
                count=2 if groups.get("two") else 1,
                lamp_type=groups.get("lamp"),
            )
    raise ValueError(f"not an ALFWorld task: {task!r}")


class Explorer:
    """Decides each step anew from what has been seen, so it can take over in the middle of anybody's episode.

    Receptacles that may hold what is sought come before others, open surfaces before a fridge, microwave or safe, and
    those before cabinets and drawers; among equals the order is that of the room text (`listed`) or shuffled once
    (`random`).
    """

    def __init__(
        self, opening: str, rng: random.Random | None = None, *, order: Literal["listed", "random"] = "listed"
    ) -> None:
        self.belief = Belief(opening)
        self.goal = read_goal(self.belief.task)
        self.receptacles = list(self.belief.receptacles)
        if order == "random":
            (rng or random.Random(0)).shuffle(self.receptacles)

    def observe(self, action: str, text: str) -> None:
        """Every action that was taken, by whomever, and the environment's answer."""
        self.belief.observe(action, text)

    def next_action(self) -> str | None:
        """None when nothing can be done any more: the hand holds what no receptacle of this room can contain."""
        belief, goal = self.belief, self.goal
        if belief.held is not None and type_of(belief.held) != goal.object_type:
            return self._put_away(belief.held)
        if goal.lamp_type is not None:
            if belief.held is None:
                return self._fetch(goal.object_type)
            return self._light(goal.lamp_type)
        return self._deliver()

    def _deliver(self) -> str:
        belief, goal = self.belief, self.goal
        destination = self._destination()
        if belief.held is None:
            return self._fetch(goal.object_type)
        if goal.treatment is not None and not self._is_ready(belief.held):
            verb, tool_type = TOOL_OF[goal.treatment]
            tool = self._nearest(tool_type)
            return self._do_at(tool, f"{verb} {belief.held} with {tool}", inside=False)
        return self._do_at(destination, f"move {belief.held} to {destination}")

    def _destination(self) -> str:
        """One receptacle for all objects of the goal: where most of them already are, else the first listed."""
        candidates = self._of_type(self.goal.receptacle_type or "")
        return max(candidates, key=lambda r: (self._count_ready(r), not self._is_refused_at(r)))

    def _count_ready(self, receptacle: str) -> int:
        things = self.belief.contents.get(receptacle, ())
        return sum(type_of(thing) == self.goal.object_type and self._is_ready(thing) for thing in things)

    def _is_ready(self, thing: str) -> bool:
        treatment = self.goal.treatment
        return treatment is None or treatment in self.belief.states.get(thing, ())

    def _is_refused_at(self, receptacle: str) -> bool:
        return f"move {self.belief.held} to {receptacle}" in self.belief.refused

    def _fetch(self, object_type: str) -> str:
        """Take an object of the type, or look for one."""
        belief = self.belief
        done = self._destination() if self.goal.receptacle_type else ""
        known = [
            (not self._is_ready(thing), belief.shut.get(receptacle, False), self.receptacles.index(receptacle), thing)
            for receptacle in self.receptacles
            for thing in belief.contents.get(receptacle, ())
            if type_of(thing) == object_type
            and not (receptacle == done and self._is_ready(thing))
            and f"take {thing} from {receptacle}" not in belief.refused
        ]
        if known:
            *_, position, thing = min(known)
            receptacle = self.receptacles[position]
            return self._do_at(receptacle, f"take {thing} from {receptacle}")
        return self._search(object_type)

    def _light(self, lamp_type: str) -> str:
        """Holding the object: go to a lamp and use it."""
        belief = self.belief
        known = [
            (receptacle, f"use {thing}")
            for receptacle in self.receptacles
            for thing in belief.contents.get(receptacle, ())
            if type_of(thing) == lamp_type and f"use {thing}" not in belief.refused
        ]
        if not known:
            return self._search(lamp_type)
        receptacle, use = known[0]
        return self._do_at(receptacle, use, inside=False)

    def _put_away(self, thing: str) -> str | None:
        """Free the hand, here if possible."""
        fits = [
            r
            for r in self.receptacles
            if (type_of(r), type_of(thing)) in rules().can_contain and f"move {thing} to {r}" not in self.belief.refused
        ]
        if not fits:
            return None
        here = [r for r in fits if self.belief.is_here(r)]
        receptacle = min(here or fits, key=self._is_shut)
        return self._do_at(receptacle, f"move {thing} to {receptacle}")

    def _is_shut(self, receptacle: str) -> bool:
        return self.belief.shut.get(receptacle, type_of(receptacle) in CLOSED_RANK)

    def _nearest(self, receptacle_type: str) -> str:
        candidates = self._of_type(receptacle_type)
        return next((r for r in candidates if self.belief.is_here(r)), candidates[0])

    def _of_type(self, receptacle_type: str) -> list[str]:
        found = [r for r in self.receptacles if type_of(r) == receptacle_type]
        if not found:
            raise ValueError(f"{self.belief.task!r} needs a {receptacle_type}, and the room text lists none")
        return found

    def _search(self, object_type: str) -> str:
        belief = self.belief
        unseen = [r for r in self.receptacles if r not in belief.contents]
        if not unseen:
            belief.forget_contents()
            unseen = self.receptacles
        places = rules().objects[object_type].places if object_type in rules().objects else {}

        def preference(receptacle: str) -> tuple[bool, int]:
            return places.get(type_of(receptacle), 0) < RARE, CLOSED_RANK.get(type_of(receptacle), 0)

        return self._look_into(min(unseen, key=preference))

    def _look_into(self, receptacle: str) -> str:
        belief = self.belief
        if not belief.is_here(receptacle):
            return f"go to {receptacle}"
        if belief.shut.get(receptacle):
            return f"open {receptacle}"
        return f"examine {receptacle}"

    def _do_at(self, receptacle: str, command: str, *, inside: bool = True) -> str:
        """Go there, open it if things go in or out, then act."""
        belief = self.belief
        if not belief.is_here(receptacle):
            return f"go to {receptacle}"
        if inside and belief.shut.get(receptacle):
            return f"open {receptacle}"
        if inside and receptacle not in belief.shut and receptacle not in belief.contents:
            return f"examine {receptacle}"
        return command


def explore(
    env: AlfworldEnv, rng: random.Random | None = None, *, order: Literal["listed", "random"] = "listed"
) -> Iterator[str]:
    """The explorer's commands from the environment's present state to the end of the episode, or to a dead end.

    Step `env` with each command as it is yielded; other commands may be played in between. Only the opening text and
    the history of the environment are read, which an agent has seen too.
    """
    opening = env.opening or env.reset()
    explorer = Explorer(opening.text, rng, order=order)
    told = 0
    while not env.done:
        for command, text in env.history[told:]:
            explorer.observe(command, text)
        told = len(env.history)
        action = explorer.next_action()
        if action is None:
            return
        yield action
