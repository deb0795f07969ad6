"""What a large WebShop catalogue costs: compiling it once, opening it in a process; with data, the goal expert's score.

    python scripts/bench/webshop_catalogue.py                     # 100,000 generated products
    python scripts/bench/webshop_catalogue.py --data-dir DIR      # also every goal of the official small set

Private memory is what a process does not share with others: anonymous pages. Mapped catalogue files belong to the page
cache. Opening is measured in a process of its own: from Python's start, and without Python and Hydra.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import Report, argument_parser, fresh_process
from empg_cli import config
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.benchmarks.webshop.load import compile_webshop
from envs import play_expert

PRODUCTS = 100_000


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data-dir", help="folder of WebShop's official small set")
    parser.add_argument("--open", help=argparse.SUPPRESS)  # how this script calls itself
    options = parser.parse_args()
    if options.open:
        print(json.dumps(open_and_play(options.open)))
        return
    report = Report("webshop_catalogue", options)
    with tempfile.TemporaryDirectory() as scratch:
        store = str(Path(scratch) / "store")
        start = time.process_time()
        compile_webshop(
            None,
            store,
            official_set="small",
            num_products=PRODUCTS,
            shop_seed=0,
            price_seed=0,
            progress=lambda _count: None,
        )
        compiling = time.process_time() - start
        process, opening, private, later = fresh_process("--open", store)
    report.table(
        f"A catalogue of {PRODUCTS:,} generated products",
        ["what", "", "unit"],
        [
            ["compiling it", compiling, "CPU s"],
            ["opening it", opening, "CPU s"],
            ["a process that has opened it, from its start", process, "CPU s"],
            ["private memory then", private, "MB"],
            ["private memory after 100 expert episodes", later, "MB"],
        ],
    )
    if options.data_dir:
        report.table(
            "expert=goal on all goals of the official small set",
            ["goals", "success", "mean score"],
            [official_goals(options.data_dir)],
        )
    report.finish()


def webshop(data_dir: str) -> Callable[[], Benchmark]:
    overrides = ["benchmark=webshop", f"benchmark.data_dir={data_dir}", "benchmark.expert=goal"]
    settings = config.load(overrides).benchmark.model_dump()
    return lambda: make_benchmark(**settings)


def open_and_play(store: str) -> tuple[float, float, float, float]:
    """CPU seconds of the process, CPU seconds of opening, private MB then, private MB after 100 episodes."""
    opening = webshop(store)
    start = time.process_time()
    benchmark = opening()
    now, private = time.process_time(), private_mb()
    tasks, rng = benchmark.tasks("train"), random.Random(0)
    play_expert(benchmark, [tasks[rng.randrange(len(tasks))] for _ in range(100)])
    return now, now - start, private, private_mb()


def official_goals(data_dir: str) -> list[object]:
    """All goals of all splits, within the configured number of steps."""
    benchmark = webshop(data_dir)()
    successes, scores = 0, []
    for split in benchmark.splits:
        for task in benchmark.tasks(split):
            env = benchmark.make_env(task)
            env.reset()
            result = next((r for r in map(env.step, benchmark.expert(env)) if r.done), None)
            successes += bool(result and result.success)
            scores.append(result.score if result else 0.0)
    return [len(scores), f"{successes / len(scores):.1%}", sum(scores) / len(scores)]


def private_mb() -> float:
    """Anonymous memory of this process (Linux); NaN elsewhere."""
    rollup = Path("/proc/self/smaps_rollup")
    found = re.search(r"^Anonymous:\s+(\d+) kB", rollup.read_text(), re.MULTILINE) if rollup.exists() else None
    return int(found[1]) / 1024 if found else float("nan")


if __name__ == "__main__":
    main()
