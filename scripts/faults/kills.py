"""`kill -9` at random moments and inside saves: the run goes on and ends as one that was left alone, bit for bit."""

from __future__ import annotations

import functools
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.faults.case import Case, check, succeeded
from scripts.faults.equal import difference
from scripts.faults.process import forked, start

RUN = (
    "train",
    "model=tiny-scratch",
    "model.arch={hidden_size:32,num_layers:1,num_heads:2,num_kv_heads:1,mlp_size:32}",
    "logger.console=plain",
    "trainer.threads=1",
    "trainer.updates=5",
    "trainer.tasks_per_update=2",
    "trainer.minibatches=2",
    "trainer.checkpoint_every=1",
    "trainer.keep_checkpoints=2",
    "trainer.eval_every=2",
    "trainer.eval_before=true",
    "trainer.warm_start.steps=3",
    "trainer.warm_start.batch_size=2",
    "algo.group_size=2",
    "benchmark.max_steps=4",
    "benchmark.eval_tasks=4",
    "run_dir=run",
)
BENCHMARKS = {
    "alfworld": ("benchmark.train_games=16",),
    "webshop": ("benchmark.num_products=120",),
    "deepsearch": ("benchmark.world.train_questions=60",),
}
CONTEXTS = ("transcript", "window")
ANYWHERE, INSIDE_A_SAVE = 40, 10


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    kinds = [(benchmark, context) for benchmark in BENCHMARKS for context in CONTEXTS]
    seconds = {}
    for kind in kinds:
        began = time.monotonic()
        succeeded(forked(*words(*kind), folder=shared / "-".join(kind)))
        seconds[kind] = time.monotonic() - began
    for number in range(ANYWHERE):
        kind = kinds[number % len(kinds)]
        moments = [random_numbers.uniform(0.05, seconds[kind]) for _ in range(1 + number % 3 // 2)]  # every third twice
        said = ", ".join(f"{moment:.2f} s" for moment in moments)
        name = f"killed after {said}: {' '.join(kind)}"
        yield Case(name, functools.partial(killed_anywhere, kind, moments, shared / "-".join(kind)))
    for number in range(INSIDE_A_SAVE):
        kind = kinds[number % len(kinds)]
        update, wait = random_numbers.randint(1, 5), random_numbers.uniform(0, 0.03)
        name = f"killed {1000 * wait:.0f} ms into the save of update {update}: {' '.join(kind)}"
        yield Case(name, functools.partial(killed_in_a_save, kind, update, wait, shared / "-".join(kind)))


def words(benchmark: str, context: str) -> tuple[str, ...]:
    return (*RUN, f"benchmark={benchmark}", *BENCHMARKS[benchmark], f"rollout={context}")


def killed_anywhere(kind: tuple[str, str], moments: list[float], straight: Path, folder: Path) -> None:
    command: tuple[str, ...] = words(*kind)
    for moment in moments:
        with start(command, folder) as run:
            end = time.monotonic() + moment
            while time.monotonic() < end and not run.is_over:
                time.sleep(0.002)
            run.send(signal.SIGKILL)
            run.wait(10)
        command = go_on(folder, command)
    ends_equal(command, straight, folder)


def killed_in_a_save(kind: tuple[str, str], update: int, wait: float, straight: Path, folder: Path) -> None:
    command = words(*kind)
    with start(command, folder) as run:
        while not run.is_over and not any(folder.glob(f"run/checkpoints/.tmp-{update:06d}-*")):
            time.sleep(0.0005)
        time.sleep(wait)
        run.send(signal.SIGKILL)
        run.wait(10)
    ends_equal(go_on(folder, command), straight, folder)


def go_on(folder: Path, command: tuple[str, ...]) -> tuple[str, ...]:
    """What a user does next: resume the run; where it died before it was one, type the same again."""
    return ("train", "--resume", "run") if (folder / "run" / "config.yaml").exists() else command


def ends_equal(command: tuple[str, ...], straight: Path, folder: Path) -> None:
    succeeded(forked(*command, folder=folder))
    found = difference(straight / "run", folder / "run")
    check(not found, found)
