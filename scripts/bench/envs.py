"""Environment steps per CPU second on all benchmarks, one process, and what 256 episodes in play hold.

    python scripts/bench/envs.py                    # generated worlds
    python scripts/bench/envs.py --data DIR         # also official data: DIR/alfworld/*.tar.xz, DIR/webshop/*.json.gz

The expert plays a task to its end; then the same actions are played again without it. "steps per CPU s" is the second
pass: making the environments, resetting them, stepping. "with expert" is the first. Shared parts (games, indices,
catalogues) are loaded before, by a few episodes that do not count. Memory is what Python allocated for 256 episodes at
their third step, beyond those shared parts.
"""

from __future__ import annotations

import os
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, Report, argument_parser
from empg_cli import config
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.types import Task

SESSIONS = 256
PARTS = 5
"""Rates are medians over parts of the episodes."""


@dataclass(frozen=True, slots=True)
class World:
    benchmark: str
    label: str
    overrides: tuple[str, ...] = ()


HERE = "benchmark.data_dir=null"
REAL = (HERE, "benchmark.world.mode=real")
PAGES = ("benchmark.snippet_words=40", "benchmark.open_tool=true", "benchmark.max_steps=12")
GENERATED = (
    World("alfworld", "ALFWorld, generated games", (HERE,)),
    World("webshop", "WebShop, generated shop, 1,000 products", (HERE,)),
    World("deepsearch", "Deep Search, fictional world, tantivy", (HERE,)),
    World("deepsearch", "Deep Search, real world, tantivy", REAL),
    World("deepsearch", "Deep Search, real world, bm25s", (*REAL, "retrieval@benchmark.retrieval=bm25s")),
    World("deepsearch", "Deep Search, real world, snippets and opened pages", (*REAL, *PAGES)),
)


def official(folder: Path) -> list[World]:
    worlds = []
    for archive in sorted((folder / "alfworld").glob("*.tar.xz")):
        worlds.append(World("alfworld", "ALFWorld, official games", (f"benchmark.data_dir={archive}",)))
    if any((folder / "webshop").glob("*.json.gz")):
        shop = (f"benchmark.data_dir={folder / 'webshop'}", "benchmark.official_set=small")
        worlds.append(World("webshop", "WebShop, official small set", shop))
    return worlds


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--episodes", type=int, default=500)
    beside = Path(os.environ.get("EMPG_TEST_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=beside, help="official data, if it exists (EMPG_TEST_DATA)")
    options = parser.parse_args()
    report = Report("envs", options)
    rows = [measure(world, options.episodes) for world in (*GENERATED, *official(options.data))]
    columns = ["world", "steps per CPU s", "with expert", "steps per episode", "solved", f"{SESSIONS} episodes, MB"]
    report.table("Environments", columns, rows)
    report.finish()


def measure(world: World, episodes: int) -> list[object]:
    settings = config.load([f"benchmark={world.benchmark}", *world.overrides]).benchmark
    benchmark = make_benchmark(**settings.model_dump())
    tasks = benchmark.tasks("train")
    tasks = [tasks[number * len(tasks) // episodes] for number in range(min(episodes, len(tasks)))]
    play_expert(benchmark, tasks[:: max(1, len(tasks) // 20)])
    expert_rates, rates, steps, solved = [], [], 0, 0
    for part in (tasks[first::PARTS] for first in range(PARTS)):
        start = time.process_time()
        actions, wins = play_expert(benchmark, part)
        expert_seconds = time.process_time() - start
        start = time.process_time()
        play_again(benchmark, part, actions)
        seconds = time.process_time() - start
        part_steps = sum(map(len, actions))
        expert_rates.append(part_steps / expert_seconds)
        rates.append(part_steps / seconds)
        steps, solved = steps + part_steps, solved + wins
    return [
        world.label,
        statistics.median(rates),
        statistics.median(expert_rates),
        steps / len(tasks),
        f"{solved / len(tasks):.1%}",
        session_memory_mb(benchmark),
    ]


def play_expert(benchmark: Benchmark, tasks: Sequence[Task]) -> tuple[list[list[str]], int]:
    """The actions of each episode, and how many were solved."""
    played, solved = [], 0
    for task in tasks:
        env = benchmark.make_env(task)
        env.reset()
        actions = []
        for action in benchmark.expert(env):
            actions.append(action)
            result = env.step(action)
            if result.done:
                solved += result.success
                break
        played.append(actions)
    return played, solved


def play_again(benchmark: Benchmark, tasks: Sequence[Task], played: Sequence[Sequence[str]]) -> None:
    for task, actions in zip(tasks, played, strict=True):
        env = benchmark.make_env(task)
        env.reset()
        for action in actions:
            env.step(action)


def session_memory_mb(benchmark: Benchmark) -> float:
    tasks = benchmark.tasks("train")[:SESSIONS]
    openings = [actions[:3] for actions in play_expert(benchmark, tasks)[0]]
    play_again(benchmark, tasks, openings)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    envs = [benchmark.make_env(task) for task in tasks]
    for env, actions in zip(envs, openings, strict=True):
        env.reset()
        for action in actions:
            env.step(action)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown / 2**20


if __name__ == "__main__":
    main()
