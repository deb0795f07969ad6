"""A text environment of your own: a game in sixty lines, played by its expert, trained on and evaluated from Python.

Run it in its folder: the commands that a run names find the game by the name of this file. A parcel lies somewhere in
a store, and the agent walks there. docs/adding-a-benchmark.md says what a benchmark has to have; `empg init my-game`
writes a project around one.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field

from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.config import load
from empg_cli.config.node import BenchmarkSettings
from empg_cli.loop import train
from empg_cli.runs.reading import open_runs
from empg_cli.types import Task

# %% The game

MOVES = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}


class Settings(BenchmarkSettings):
    """Keys of `benchmark`, beside those that every benchmark has."""

    size: int = Field(default=4, ge=2, le=9)
    split: Literal["train", "valid"] = "valid"
    max_steps: int = 8


class Walk:
    """One episode."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self._settings, self._steps = task, settings, 0
        self._row, self._column, *self._parcel = task.data

    def text(self) -> str:
        down, right = self._parcel[0] - self._row, self._parcel[1] - self._column
        ways = {"south": down, "north": -down, "east": right, "west": -right}
        return " ".join(["parcel", *(f"{way} {steps}" for way, steps in ways.items() if steps > 0)])

    def reset(self) -> Observation:
        return Observation(self.text(), tuple(MOVES))

    def step(self, action: str) -> StepResult:
        self._steps += 1
        down, right = MOVES.get(action, (0, 0))
        row, column = self._row + down, self._column + right
        valid = action in MOVES and {row, column} <= set(range(self._settings.size))
        if valid:
            self._row, self._column = row, column
        found = [self._row, self._column] == self._parcel
        done = found or self._steps >= self._settings.max_steps
        reward = self._settings.success_reward if found else 0.0
        return StepResult(self.text(), tuple(MOVES), reward, done, found, score=float(found), valid=valid, info={})


class Store:
    """The benchmark: tasks, episodes, an expert, and the words that a model from scratch needs."""

    splits = ("train", "valid")

    def __init__(self, settings: Settings) -> None:
        self.name, self._settings = settings.name, settings
        self.vocabulary = ["parcel", *MOVES, *map(str, range(settings.size))]

    def tasks(self, split: str) -> list[Task]:
        places = product(range(self._settings.size), repeat=4)
        walks = [place for place in places if place[:2] != place[2:]]
        chosen = [walk for number, walk in enumerate(walks) if (number % 5 == 0) == (split == "valid")]
        return [Task("-".join(map(str, walk)), "walk", split, walk) for walk in chosen]

    def make_env(self, task: Task) -> Walk:
        return Walk(task, self._settings)

    def expert(self, env: Walk, rng: Random | None = None) -> Iterator[str]:
        """Goes the first way that is named, by what an agent sees."""
        while ways := [word for word in env.text().split() if word in MOVES]:
            yield ways[0]

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "generated", "tasks": {split: len(self.tasks(split)) for split in self.splits}}


TARGET = "own_text_environment:Store"  # module:name, as benchmark.target= of the command line

# %% Watch the expert

if __name__ == "__main__":
    store = make_benchmark(target=TARGET, size=4)
    env = store.make_env(store.tasks("valid")[4])
    print(env.reset().text)
    for action in store.expert(env):
        print(f"> {action}\n{env.step(action).text}")

# %% Train: random weights that have seen the form of an answer, then EMPG on GRPO

if __name__ == "__main__":
    cfg = load(
        [
            f"benchmark.target={TARGET}",
            "benchmark.name=store",
            "benchmark.size=4",
            "model=tiny-scratch",
            "rollout=window",
            "rollout.history=0",
            "algo=empg",
            "algo.loss.kl_coef=0",
            "trainer.warm_start.steps=30",
            "trainer.warm_start.mistakes=0.9",
            "trainer.updates=12",
            "trainer.tasks_per_update=8",
            "trainer.lr=0.001",
            "trainer.eval_every=4",
            "logger.wandb.mode=disabled",
            "resume=restart",  # set aside what an earlier start has left
        ]
    )
    summary = train(cfg, Path("runs/store"))

# %% What came of it

if __name__ == "__main__":
    (run,) = open_runs([summary.run_dir])
    for update, row in run.rows.items():
        if (success := row.get("eval/success_rate")) is not None:
            print(f"after {update:2d} updates: {success:5.1%} of the parcels that it was not trained on")
