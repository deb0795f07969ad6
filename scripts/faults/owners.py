"""Two processes, one folder."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

from scripts.faults.case import Case, check, refused, succeeded
from scripts.faults.process import forked, start

SHORT = ("train", "experiment=smoke", "logger.console=plain", "run_dir=run")


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    yield Case("a second run in the folder of a live one", twins)


def twins(folder: Path) -> None:
    with start([*SHORT, "trainer.updates=6"], folder) as first:
        first.wait_until(folder / "run" / "metrics.jsonl")
        refused(forked(*SHORT, folder=folder), "run")
        succeeded(first.wait())
    rows = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    check(len(rows) == 7, f"{len(rows)} rows of 6 updates and the evaluation before")
    check(first.is_over and signal.SIGKILL > 0, "the first run goes on")
