"""300 updates, and the same with three stops: memory and open files stay as they are, and both end bit-equal."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.faults.case import Case, check, succeeded
from scripts.faults.equal import difference
from scripts.faults.kills import words
from scripts.faults.process import Running, start

UPDATES, EARLY, LATE = 300, 50, 290
MOST_GROWTH = 1.03
"""Resident memory after the last update, over that after update 50."""
RUN = (
    *words("alfworld", "transcript"),
    f"trainer.updates={UPDATES}",
    "trainer.eval_every=50",
    "trainer.checkpoint_every=10",
)


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at a moment."""

    bytes: int
    files: Counter[str]
    """Open ones that last, and how often."""


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    if sys.platform != "linux":
        print("soak: not run, it reads /proc", file=sys.stderr)
        return
    yield Case(f"{UPDATES} updates hold no more memory and files than {EARLY}", functools.partial(straight, shared))
    stops = sorted(random_numbers.sample(range(20, UPDATES - 20), 3))
    yield Case(f"stopped at updates {stops}", functools.partial(stopped, shared, stops))


def straight(shared: Path, folder: Path) -> None:
    with start(RUN, shared) as run:
        early = held_after(run, shared / "run", EARLY)
        late = held_after(run, shared / "run", LATE)
        succeeded(run.wait(600))
    more = late.files - early.files
    check(late.files.total() <= early.files.total(), f"open after update {LATE} and not after {EARLY}: {more}")
    growth = late.bytes / early.bytes
    check(growth <= MOST_GROWTH, f"{late.bytes / 2**20:.0f} MB after {LATE} updates: {growth:.3f} times as much")


def stopped(shared: Path, stops: list[int], folder: Path) -> None:
    command: tuple[str, ...] = RUN
    for signum, update in zip((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), stops, strict=True):
        with start(command, folder) as run:
            held_after(run, folder / "run", update)
            run.send(signum)
            ended = run.wait(60)
            check(ended.code == 128 + signum, f"exit code {ended.code} after {signum.name}")
        command = ("train", "--resume", "run")
    with start(command, folder) as run:
        succeeded(run.wait(600))
    found = difference(shared / "run", folder / "run")
    check(not found, found)


def held_after(run: Running, folder: Path, update: int) -> Held:
    """What the command holds right after it has logged this update."""
    rows = folder / "metrics.jsonl"
    while not run.is_over and not (rows.exists() and f'{{"update": {update},' in rows.read_text()):
        time.sleep(0.05)
    check(not run.is_over, f"the run ended before update {update}")
    pages = int(Path(f"/proc/{run.pid}/statm").read_text().split()[1])
    lasting = open_files(run)
    for _ in range(10):  # a rollout's event loop and a save's files come and go
        time.sleep(0.02)
        lasting &= open_files(run)
    return Held(pages * os.sysconf("SC_PAGE_SIZE"), lasting)


def open_files(run: Running) -> Counter[str]:
    found: Counter[str] = Counter()
    for link in Path(f"/proc/{run.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found[str(link.readlink())] += 1
    return found
