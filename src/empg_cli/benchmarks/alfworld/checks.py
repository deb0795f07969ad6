"""What holds for all 3,827 official games, and hardly ever for a damaged one; 0.5 ms a game."""

from __future__ import annotations

from empg_cli.benchmarks.alfworld.belief import type_of
from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import read_goal
from empg_cli.benchmarks.alfworld.game import CompiledGame
from empg_cli.benchmarks.alfworld.planner import oracle_plan
from empg_cli.errors import DataError
from empg_cli.types import Task


def refuse_unplayable(game: CompiledGame) -> None:
    """Raises DataError when the words ask for another goal than the PDDL, a name says another type, the planner cannot
    win the game, or the game is won before it begins."""
    _refuse_other_words(game)
    env = AlfworldEnv(Task("", "", ""), game, max_steps=1000)
    env.reset()
    try:
        plan = oracle_plan(env)
    except ValueError as error:
        raise DataError(f"the game cannot be won: {error}") from error
    for command in plan:
        env.step(command)
    if not env.won:
        raise DataError("the game cannot be won" if plan else "the game is won before it begins")


def _refuse_other_words(game: CompiledGame) -> None:
    try:
        told = read_goal(game.task)
    except ValueError as error:
        raise DataError(str(error)) from error
    if told != game.goal:
        raise DataError(f"the words ask for {game.task!r}, the PDDL goal is {game.goal}")
    named = [*((r.name, r.type) for r in game.receptacles), *((thing.name, thing.type) for thing in game.things)]
    for name, kind in named:
        if type_of(name) != kind and not name.startswith("bathtubbasin "):  # a sinkbasin
            raise DataError(f"{name!r} has the type {kind!r}")
