"""ALFWorld's text engine in pure Python: the same text, commands and rewards as TextWorld 1.7.0 + alfworld 0.4.2.

Kept on purpose, because published agents met them: lists without English niceties ("a egg", ", and" for two items),
`look` at the start sees nothing, objects in view cannot be examined (only held ones), heating needs no open microwave,
`use` turns a lamp "on" every time, matching is exact and case-sensitive.
"""

from __future__ import annotations

from collections.abc import Callable

from empg_cli.benchmarks.alfworld.game import TOOL_OF, CompiledGame, Treatment, listing
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.types import Task

REFUSED = "Nothing happens."
HELP = """Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""

_TREATMENTS: tuple[tuple[str, Treatment], ...] = (("cleanable", "clean"), ("heatable", "hot"), ("coolable", "cool"))

Command = tuple[Callable[..., str], tuple[int | str, ...]]


class AlfworldEnv:
    """One episode of a game. Everything that changes lives here; the game itself is shared and never written."""

    def __init__(self, task: Task, game: CompiledGame, *, max_steps: int = 50, success_reward: float = 10.0) -> None:
        self.task = task
        self.game = game
        self.max_steps = max_steps
        self.success_reward = success_reward
        self.steps = 0
        self.won = False
        self.done = False
        self.opening: Observation | None = None
        self.history: list[tuple[str, str]] = []
        """Every (command, answer) so far: what an agent has seen."""
        self._set_state()

    def _set_state(self) -> None:
        things = self.game.things

        def having(state: str) -> set[int]:
            return {index for index, thing in enumerate(things) if state in thing.states}

        self.place = self.game.room.start
        self.held = having("held")
        self.opened = {index for index, receptacle in enumerate(self.game.receptacles) if receptacle.opened}
        self.contents: list[set[int]] = [set() for _ in self.game.receptacles]
        for index, thing in enumerate(things):
            for receptacle in thing.receptacles:
                self.contents[receptacle].add(index)
        self.treated: dict[Treatment, set[int]] = {treatment: having(treatment) for treatment in TOOL_OF}
        self.toggled = having("toggled")
        self.sliced = having("sliced")
        # Where the engine believes objects to be, apart from what contains them: `slice` and `look` read this.
        self.object_places = [set(thing.places) for thing in things]
        self.taken_from: dict[int, set[int]] = {}
        self._commands: dict[str, Command] = {}
        self._actions: tuple[str, ...] = ()

    def reset(self) -> Observation:
        self.steps, self.won, self.done = 0, False, False
        self.history = []
        self._set_state()
        self._refresh_commands()
        here = self.game.room.receptacles_at.get(self.place)
        scene = self._look() if here else self.game.room.text
        text = f"-= Welcome to TextWorld, ALFRED! =-\n\n{scene}\n\nYour task is to: {self.game.task}."
        self.opening = Observation(text, self._actions)
        return self.opening

    def step(self, action: str) -> StepResult:
        """Every command counts as a step. After the end nothing changes any more."""
        if self.opening is None:
            raise RuntimeError("step() before reset(): call reset() once to start the episode")
        if self.done:
            text = self.history[-1][1]
            return StepResult(text, self._actions, 0.0, True, self.won, float(self.won), valid=False)
        self.steps += 1
        command = self._commands.get(action.strip())
        if command is None:
            text = REFUSED
        else:
            perform, arguments = command
            text = perform(*arguments)
            self.won = self._goal_holds()
            self._refresh_commands()
        self.history.append((action, text))
        self.done = self.won or self.steps >= self.max_steps
        return StepResult(
            text=text,
            actions=self._actions,
            reward=self.success_reward if self.won else 0.0,
            done=self.done,
            success=self.won,
            score=float(self.won),
            valid=command is not None,
            at_limit=self.done and not self.won,
        )

    def _refresh_commands(self) -> None:
        game, things, receptacles = self.game, self.game.things, self.game.receptacles
        traits = game.traits
        commands: dict[str, Command] = {}
        for r in game.room.receptacles_at.get(self.place, ()):
            receptacle = receptacles[r]
            place_name = receptacle.name
            commands[f"examine {place_name}"] = (self._view, (r,))
            accessible = True
            if receptacle.openable:
                accessible = r in self.opened
                if accessible:
                    commands[f"close {place_name}"] = (self._close, (r,))
                else:
                    commands[f"open {place_name}"] = (self._open, (r,))
            for o in self.contents[r]:
                if accessible and not self.held and o in traits["pickupable"]:
                    commands[f"take {things[o].name} from {place_name}"] = (self._take, (o, r))
                if o in traits["toggleable"]:
                    commands[f"use {things[o].name}"] = (self._use, (o,))
            for o in self.held:
                if accessible and (receptacle.type, things[o].type) in game.can_contain:
                    commands[f"move {things[o].name} to {place_name}"] = (self._put, (o, r))
                for trait, treatment in _TREATMENTS:
                    verb, tool = TOOL_OF[treatment]
                    if receptacle.type == tool and trait in things[o].traits:
                        commands[f"{verb} {things[o].name} with {place_name}"] = (self._treat, (treatment, o, r))
        for o in self.held:
            commands[f"examine {things[o].name}"] = (self._examine, (o,))
            if o in game.knives:
                for x in traits["sliceable"]:
                    if self.place in self.object_places[x]:
                        commands[f"slice {things[x].name} with {things[o].name}"] = (self._slice, (x, o))
        for text, r in game.room.travel[self.place].items():
            commands[text] = (self._go, (r,))
        commands["help"] = (self._help, ())
        commands["inventory"] = (self._inventory, ())
        commands["look"] = (self._look, ())
        self._commands = commands
        self._actions = tuple(sorted(commands))

    # Each of the following performs one command and returns the engine's answer.

    def _go(self, r: int) -> str:
        receptacle = self.game.receptacles[r]
        self.place = receptacle.place
        return f"You arrive at {receptacle.name}. {self._view(r)}"

    def _view(self, r: int) -> str:
        receptacle = self.game.receptacles[r]
        seen = listing("a " + self.game.things[o].name for o in sorted(self.contents[r]))
        if not receptacle.openable:
            return f"On the {receptacle.name}, you see {seen}."
        if r in self.opened:
            return f"The {receptacle.name} is open. In it, you see {seen}."
        return f"The {receptacle.name} is closed."

    def _open(self, r: int) -> str:
        self.opened.add(r)
        return f"You open the {self.game.receptacles[r].name}. {self._view(r)}"

    def _close(self, r: int) -> str:
        self.opened.discard(r)
        return f"You close the {self.game.receptacles[r].name}."

    def _take(self, o: int, r: int) -> str:
        self.contents[r].discard(o)
        self.taken_from.setdefault(o, set()).add(r)
        self.object_places[o].discard(self.place)
        self.held.add(o)
        return f"You pick up the {self.game.things[o].name} from the {self.game.receptacles[r].name}."

    def _put(self, o: int, r: int) -> str:
        self.held.discard(o)
        self.contents[r].add(o)
        self.taken_from.get(o, set()).discard(r)
        self.object_places[o].add(self.place)
        return f"You move the {self.game.things[o].name} to the {self.game.receptacles[r].name}."

    def _treat(self, treatment: Treatment, o: int, r: int) -> str:
        self.treated[treatment].add(o)
        if treatment == "hot":
            self.treated["cool"].discard(o)
        elif treatment == "cool":
            self.treated["hot"].discard(o)
        verb = TOOL_OF[treatment][0]
        return f"You {verb} the {self.game.things[o].name} using the {self.game.receptacles[r].name}."

    def _use(self, o: int) -> str:
        self.toggled.add(o)
        return f"You turn on the {self.game.things[o].name}."

    def _slice(self, x: int, knife: int) -> str:
        self.sliced.add(x)
        return f"You sliced the {self.game.things[x].name} with the {self.game.things[knife].name}."

    def _examine(self, o: int) -> str:
        thing = self.game.things[o]
        name = thing.name
        if "container" in thing.traits:
            return f"This is a normal {name}. In it, you see {listing('a ' + inner for inner in thing.inside)}."
        clean, hot, cool = (o in self.treated[treatment] for treatment in ("clean", "hot", "cool"))
        sliced = o in self.sliced
        if sliced and (clean or hot or cool):
            words = [word for word, true in (("hot", hot), ("cool", cool and not hot), ("clean", clean)) if true]
            return f"This is a {' and '.join(words)} sliced {name}."
        if clean and (hot or cool):
            return f"This is a {'hot' if hot else 'cool'} and clean {name}."
        if hot:
            return f"This is a hot {name}."
        if clean:
            return f"This is a clean {name}."
        if cool:
            return f"This is a cold {name}."
        if "toggleable" in thing.traits and o in self.toggled:
            return f"This {name} is on."
        if sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."

    def _inventory(self) -> str:
        if not self.held:
            return "You are not carrying anything."
        return f"You are carrying: {listing('a ' + self.game.things[o].name for o in sorted(self.held))}."

    def _help(self) -> str:
        return HELP

    def _look(self) -> str:
        """After a step the engine lists what is at the agent's own spot, which is nothing before the first `go to`."""
        here = self.game.room.receptacles_at.get(self.place)
        if not here:
            return "You are in the middle of a room. Looking quickly around you, you see nothing."
        facing = listing(self.game.receptacles[r].name for r in here)
        # The domain's idea of "next to": objects at this place that were once taken out of a receptacle here.
        beside = listing(
            "a " + self.game.things[o].name
            for o in sorted(self.taken_from)
            if self.place in self.object_places[o]
            for r in here
            if r in self.taken_from[o]
        )
        return f"You are facing the {facing}. Next to it, you see {beside}."

    def _goal_holds(self) -> bool:
        game, goal = self.game, self.game.goal
        if goal.lamp_type is not None:
            if self.held.isdisjoint(game.targets):
                return False
            lit = game.goal_lamps & self.toggled
            return any(not lit.isdisjoint(self.contents[r]) for r in game.room.receptacles_at.get(self.place, ()))
        good = game.targets if goal.treatment is None else game.targets & self.treated[goal.treatment]
        return any(len(self.contents[r] & good) >= goal.count for r in game.goal_receptacles)
