"""A privileged planner: reads the hidden state and lists commands that win. It proves that a game can be won."""

from __future__ import annotations

from collections.abc import Iterable

from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.game import TOOL_OF


def oracle_plan(env: AlfworldEnv) -> list[str]:
    """Commands that win from the environment's present state; empty when it is won. Short, not always shortest.

    Raises ValueError when the goal cannot be reached: too few objects, or something in the hand that nothing can hold
    (in the official rules a paper towel roll, once taken, can never be put down).
    """
    return [] if env.won else _Plan(env).commands


class _Plan:
    """Walks through the episode in mind: where the agent is, what is open, what the hand holds."""

    def __init__(self, env: AlfworldEnv) -> None:
        self.env = env
        self.game = env.game
        self.commands: list[str] = []
        self._place = env.place
        self._opened = set(env.opened)
        self._held = min(env.held, default=None)
        if self.game.goal.lamp_type is not None:
            self._plan_light()
        else:
            self._plan_delivery()

    def _plan_light(self) -> None:
        game = self.game
        if self._held not in game.targets:
            if self._held is not None:
                self._put_away(self._held)
            self._take(self._easiest(game.targets, game.goal.object_type))
        lamp = self._easiest(game.goal_lamps, game.goal.lamp_type or "lamp")
        self._go(self._home(lamp))
        if lamp not in self.env.toggled:  # a lamp counts as lit for ever: then arriving with the object wins
            self.commands.append(f"use {game.things[lamp].name}")

    def _plan_delivery(self) -> None:
        game, goal, env = self.game, self.game.goal, self.env
        if not game.goal_receptacles:
            raise ValueError(f"no {goal.receptacle_type} in the room of {game.task!r}")
        treated = game.targets if goal.treatment is None else env.treated[goal.treatment]
        ready = game.targets & treated
        destination = max(game.goal_receptacles, key=lambda r: (len(env.contents[r] & ready), -r))
        missing = goal.count - len(env.contents[destination] & ready)
        if self._held is not None and self._held not in game.targets:
            self._put_away(self._held)
        pool = [self._held] if self._held is not None else []
        elsewhere = {o for o in game.targets if self._homes(o)} - (env.contents[destination] & ready)
        pool += sorted(elsewhere, key=lambda o: (o not in treated, self._is_shut(self._home(o)), o))
        if len(pool) < missing:
            raise ValueError(f"{len(pool)} {goal.object_type} to be had for {game.task!r}, {missing} needed")
        for o in pool[:missing]:
            if o != self._held:
                self._take(o)
            if goal.treatment is not None and o not in treated:
                verb, tool = TOOL_OF[goal.treatment]
                at = self._tool(tool)
                self._go(at)
                self.commands.append(f"{verb} {game.things[o].name} with {game.receptacles[at].name}")
            self._put(o, destination)

    def _take(self, o: int) -> None:
        r = self._home(o)
        self._go(r, reach_inside=True)
        self.commands.append(f"take {self.game.things[o].name} from {self.game.receptacles[r].name}")
        self._held = o

    def _put(self, o: int, r: int) -> None:
        self._go(r, reach_inside=True)
        self.commands.append(f"move {self.game.things[o].name} to {self.game.receptacles[r].name}")
        self._held = None

    def _put_away(self, o: int) -> None:
        kind = self.game.things[o].type
        fits = [r for r, x in enumerate(self.game.receptacles) if (x.type, kind) in self.game.can_contain]
        if not fits:
            raise ValueError(f"nothing in the room of {self.game.task!r} can hold {self.game.things[o].name}")
        self._put(o, min(fits, key=lambda r: (self.game.receptacles[r].place != self._place, self._is_shut(r), r)))

    def _go(self, r: int, *, reach_inside: bool = False) -> None:
        receptacle = self.game.receptacles[r]
        if receptacle.place != self._place:
            self.commands.append(f"go to {receptacle.name}")
            self._place = receptacle.place
        if reach_inside and self._is_shut(r):
            self.commands.append(f"open {receptacle.name}")
            self._opened.add(r)

    def _is_shut(self, r: int) -> bool:
        return self.game.receptacles[r].openable and r not in self._opened

    def _homes(self, o: int) -> list[int]:
        return [r for r, contents in enumerate(self.env.contents) if o in contents]

    def _home(self, o: int) -> int:
        return self._homes(o)[0]

    def _easiest(self, things: Iterable[int], what: str) -> int:
        lying = [o for o in things if self._homes(o)]
        if not lying:
            raise ValueError(f"no {what} to be had for {self.game.task!r}")
        return min(lying, key=lambda o: (self._is_shut(self._home(o)), o))

    def _tool(self, kind: str) -> int:
        for r, receptacle in enumerate(self.game.receptacles):
            if receptacle.type == kind:
                return r
        raise ValueError(f"no {kind} in the room of {self.game.task!r}")
