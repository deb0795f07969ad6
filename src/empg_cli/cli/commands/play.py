"""`empg play`: a person at the keyboard takes the agent's place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark, StepResult, UnscoredError
from empg_cli.benchmarks.border import EnvironmentFailed, begin, expert_actions, reason_of, step_in_place
from empg_cli.config import load
from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.errors import DataError
from empg_cli.observe.terminal import is_live_terminal, printable
from empg_cli.services.errors import ServiceError
from empg_cli.types import Task

if TYPE_CHECKING:
    from rich.console import Console

HELP = "Type an action or its number.  ?  lists what can be done,  hint  asks the expert,  quit  ends."
ONLY = "only benchmark=..., benchmark.key=... and group@benchmark.key=... are"
NO_HINT = "the expert has nothing more to say"


class Keyboard(Protocol):
    def __call__(self) -> str | None:
        """The next line without its end; None when there are no more."""
        ...


def run(overrides: Sequence[str], number: int) -> None:
    from rich.console import Console

    not_read = [word for word in overrides if not _is_read(word)]
    if not_read:
        raise ConfigError(INVALID, [Problem(word, "is not read by `empg play`", hint=ONLY) for word in not_read])
    settings = load(overrides, "eval").benchmark
    benchmark = make_benchmark(**settings.model_dump())
    tasks = benchmark.tasks(settings.split)
    if number >= len(tasks):
        what = f"the split {settings.split} has the tasks 0 to {len(tasks) - 1}"
        raise ConfigError(INVALID, [Problem("--task", what, str(number))])
    console = Console(highlight=False)
    play(benchmark, tasks[number], settings.max_steps, console, _keyboard(console))


def _is_read(word: str) -> bool:
    """The override sets the benchmark or something in it: `group@package=...` sets its package."""
    key = word.lstrip("+~").partition("=")[0]
    place = key.rpartition("@")[2].rpartition(":")[2]  # Hydra renames a package by `group@old:new`
    return place.split(".")[0] == "benchmark"


def play(benchmark: Benchmark, task: Task, max_steps: int, console: Console, keyboard: Keyboard) -> bool | None:
    """One episode. True or False when it ended, None when the player left."""
    try:
        env, observation = begin(benchmark, task)
    except EnvironmentFailed as failed:
        raise DataError(f"{task.task_id} cannot be played: {reason_of(failed)}") from failed
    expert = Expert(benchmark, task)
    console.print(f"[bold]{task.task_id}[/bold]  ({task.kind}, at most {max_steps} steps)", soft_wrap=True)
    console.print(HELP, style="dim")
    _show(console, observation.text)
    actions, steps = observation.actions, 0
    while True:
        action = _choose(console, keyboard, actions, expert)
        if action is None:
            console.print(f"left after {steps} steps", style="dim")
            return None
        try:
            result = step_in_place(env, action)
        except EnvironmentFailed as failed:
            expected = isinstance(failed.error, UnscoredError | ServiceError)
            why = str(failed.error) if expected else reason_of(failed)
            console.print(f"the episode ends unscored: {printable(why)}", style="red", markup=False)
            return None
        expert.saw(action)
        steps, actions = steps + 1, result.actions
        _show_result(console, result)
        if result.done:
            verdict = f"{'solved' if result.success else 'failed'} after {steps} steps (score {result.score:g})"
            console.print(verdict, style="bold green" if result.success else "bold red")
            return result.success


class Expert:
    """The benchmark's expert, for hints: replays the player's actions in an environment of its own, when asked."""

    def __init__(self, benchmark: Benchmark, task: Task) -> None:
        self._benchmark, self._task = benchmark, task
        self._history: list[str] = []

    def saw(self, action: str) -> None:
        self._history.append(action)

    def hint(self) -> str:
        try:
            env, _ = begin(self._benchmark, self._task)
            for action in self._history:
                step_in_place(env, action)
            return next(expert_actions(self._benchmark, env, None), NO_HINT)
        except EnvironmentFailed as failed:
            return f"{NO_HINT} ({reason_of(failed)})"


def _choose(console: Console, keyboard: Keyboard, actions: Sequence[str], expert: Expert) -> str | None:
    """The player's next action; None to leave."""
    while True:
        line = keyboard()
        word = line.strip() if line is not None else "quit"
        if word.lower() in ("quit", "exit", "q"):
            return None
        if word == "?":
            for index, action in enumerate(actions, start=1):
                console.print(f"{index:3}  {printable(action)}", markup=False, soft_wrap=True)
        elif word.lower() == "hint":
            console.print(f"the expert would: {printable(expert.hint())}", style="cyan", markup=False, soft_wrap=True)
        elif word.isdecimal():
            if 1 <= int(word) <= len(actions):
                chosen = actions[int(word) - 1]
                console.print(f"> {printable(chosen)}", style="bold", markup=False, soft_wrap=True)
                return chosen
            console.print(f"there are the actions 1 to {len(actions)}; ? lists them", style="yellow")
        elif word:
            return word


def _show(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, soft_wrap=not console.is_terminal)


def _show_result(console: Console, result: StepResult) -> None:
    _show(console, result.text)
    if not result.valid:
        console.print("(refused: nothing changed; ? lists what can be done)", style="yellow")


def _keyboard(console: Console) -> Keyboard:
    """Lines from a terminal with a prompt, or from a pipe without one; Ctrl-C and the end of input leave."""
    is_terminal = is_live_terminal(sys.stdin)

    def read() -> str | None:
        try:
            return console.input("[bold]> [/bold]") if is_terminal else next(sys.stdin, None)
        except (EOFError, KeyboardInterrupt):
            console.print()
            return None

    return read
