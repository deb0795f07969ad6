"""Speed and memory of the WebShop environment against its targets; exit code 1 if one is missed.

    python scripts/bench/webshop_env.py                     # generated shops
    python scripts/bench/webshop_env.py --data-dir DIR      # also the official small set

Times are CPU seconds of this process, so a busy machine does not move them much. Private memory is what a process does
not share with others: anonymous pages; mapped catalogue files belong to the page cache.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

from empg_cli.benchmarks.webshop.benchmark import WebShopBenchmark  # noqa: E402
from empg_cli.benchmarks.webshop.load import compile_webshop  # noqa: E402

STEPS_PER_SECOND = 1500
SESSIONS, SESSIONS_MB = 256, 5.0
STORE_PRODUCTS, STORE_SECONDS, STORE_MB = 100_000, 0.5, 60.0

_missed = 0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data-dir", help="folder of WebShop's official small set")
    arguments.add_argument("--open-only", help=argparse.SUPPRESS)  # how this script calls itself
    options = arguments.parse_args()
    if options.open_only:
        return _open_store(options.open_only)

    generated = _benchmark(num_products=1000)
    _report_speed("generated, 1,000 products", generated)
    _report_sessions(generated)
    if options.data_dir:
        official = _benchmark(data_dir=options.data_dir)
        _report_speed("official small set", official)
        _report_expert(official)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        with _cpu_seconds() as compiling:
            keys = {"official_set": "small", "num_products": STORE_PRODUCTS, "shop_seed": 0, "price_seed": 0}
            compile_webshop(None, str(store), **keys, progress=lambda _count: None)
        _line(f"compile {STORE_PRODUCTS:,} products", compiling[0], "CPU s")
        opened = subprocess.run(
            [sys.executable, __file__, "--open-only", str(store)], check=True, capture_output=True, text=True
        )
        seconds, megabytes, after = map(float, opened.stdout.split())
        _line(f"open {STORE_PRODUCTS:,} products, imports included", seconds, "CPU s", at_most=STORE_SECONDS)
        _line("  private memory of that process", megabytes, "MB", at_most=STORE_MB)
        _line("  after 100 expert episodes", after, "MB", at_most=STORE_MB)
    return 1 if _missed else 0


def _benchmark(**changes: Any) -> WebShopBenchmark:
    keys = (
        yaml.safe_load((ROOT / "conf/benchmark/webshop.yaml").read_text(encoding="utf-8"))
        | {"data_dir": None, "expert": "goal"}
        | changes
    )
    for key in ("name", "split", "eval_tasks", "invalid_action_penalty", "invalid_action_scope"):
        del keys[key]
    return WebShopBenchmark(**keys)


def _play_expert(benchmark: WebShopBenchmark, episodes: int, split: str = "train") -> tuple[int, int, float]:
    """Steps taken, goals solved, sum of scores, over randomly drawn tasks."""
    tasks, rng = benchmark.tasks(split), random.Random(0)
    steps, solved, score = 0, 0, 0.0
    for _ in range(episodes):
        env = benchmark.make_env(tasks[rng.randrange(len(tasks))])
        env.reset()
        for action in benchmark.expert(env):
            result = env.step(action)
            steps += 1
            if result.done:
                solved += result.success
                score += result.score
                break
    return steps, solved, score


def _report_speed(name: str, benchmark: WebShopBenchmark, episodes: int = 1000) -> None:
    with _cpu_seconds() as used:
        steps, solved, _score = _play_expert(benchmark, episodes)
    _line(f"expert steps, search included ({name})", steps / used[0], "per CPU s", at_least=STEPS_PER_SECOND)
    _line("  of which solved", 100 * solved / episodes, "%")


def _report_expert(benchmark: WebShopBenchmark) -> None:
    """All goals of all splits, within the configured number of steps."""
    results = []
    for split in benchmark.splits:
        for task in benchmark.tasks(split):
            env = benchmark.make_env(task)
            env.reset()
            result = next((r for r in map(env.step, benchmark.expert(env)) if r.done), None)
            results.append((result.success, result.score) if result else (False, 0.0))
    successes, scores = zip(*results, strict=True)
    _line(
        f"expert on all {len(results):,} official goals: success", 100 * sum(successes) / len(results), "%", at_least=92
    )
    _line("  mean score", sum(scores) / len(results), "", at_least=0.98)


def _report_sessions(benchmark: WebShopBenchmark) -> None:
    """What 256 episodes in the middle of their way hold."""
    tasks = benchmark.tasks("train")
    for warm in (0, 1):  # the first pass fills the shared caches
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        envs = [benchmark.make_env(tasks[number]) for number in range(SESSIONS)]
        for env in envs:
            env.reset()
            expert = benchmark.expert(env)
            for _ in range(3):
                env.step(next(expert))
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        if warm:
            _line(f"{SESSIONS} sessions at their third step", grown / 2**20, "MB", at_most=SESSIONS_MB)


def _open_store(folder: str) -> int:
    benchmark = _benchmark(data_dir=folder)
    seconds, private = time.process_time(), _private_megabytes()
    _play_expert(benchmark, 100)
    print(seconds, private, _private_megabytes())
    return 0


def _private_megabytes() -> float:
    """Anonymous memory of this process (Linux); NaN elsewhere."""
    rollup = Path("/proc/self/smaps_rollup")
    found = re.search(r"^Anonymous:\s+(\d+) kB", rollup.read_text(), re.MULTILINE) if rollup.exists() else None
    return int(found[1]) / 1024 if found else float("nan")


@contextmanager
def _cpu_seconds() -> Iterator[list[float]]:
    used: list[float] = []
    start = time.process_time()
    yield used
    used.append(time.process_time() - start)


def _line(what: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None) -> None:
    global _missed
    target = (
        f"target >= {at_least:g}" if at_least is not None else f"target <= {at_most:g}" if at_most is not None else ""
    )
    missed = (at_least is not None and value < at_least) or (at_most is not None and value > at_most)
    _missed += missed
    print(f"{what:<58} {value:>10,.2f} {unit:<10} {target}{'  MISSED' if missed else ''}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
