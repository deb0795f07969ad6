"""Runs the groups of cases and prints the table: injected, survived, lost, tracebacks. The last two must be zero."""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from scripts.faults import process
from scripts.faults.case import Case, Group, Lost

GROUPS: tuple[str, ...] = ("sweeps", "owners")
"""Modules of this package, the longest first: two run at a time."""


@dataclass
class Counts:
    group: str
    injected: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    seconds: float = 0.0


def main(arguments: Sequence[str]) -> int:
    """0 where nothing was lost and no traceback was shown."""
    parser = argparse.ArgumentParser(prog="python -m scripts.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="groups of cases")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the mutations")
    parser.add_argument("--jobs", type=int, default=2, help="groups at once")
    parser.add_argument("--json", type=Path, help="write the table there too")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    given = parser.parse_args(arguments)
    scratch = given.keep or Path(tempfile.mkdtemp(prefix="empg-faults-"))
    fresh = multiprocessing.get_context("spawn")
    counted: list[Counts] = []
    with ProcessPoolExecutor(given.jobs, mp_context=fresh, max_tasks_per_child=1) as pool:
        waiting = [pool.submit(run_group, name, scratch / name, given.seed) for name in given.only]
        for done in as_completed(waiting):
            counts = done.result()
            counted.append(counts)
            print(
                f"{counts.group}: {counts.survived} of {counts.injected} survived, {counts.seconds:.0f} s", flush=True
            )
            for text in (*counts.lost, *counts.tracebacks):
                print(f"  {text}", flush=True)
    show(counted)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([asdict(counts) for counts in counted], indent=1) + "\n")
    if not given.keep:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(any(counts.lost or counts.tracebacks or not counts.injected for counts in counted))


def run_group(name: str, scratch: Path, seed: int) -> Counts:
    """In a process of its own."""
    group = cast(Group, importlib.import_module(f"scripts.faults.{name}"))
    counts = Counts(name)
    began = time.monotonic()
    shared = scratch / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(group.cases(shared, random.Random(seed))):
        run_case(case, scratch / f"{number:04d}", counts)
    counts.seconds = time.monotonic() - began
    return counts


def run_case(case: Case, folder: Path, counts: Counts) -> None:
    folder.mkdir(parents=True)
    counts.injected += 1
    process.seen_tracebacks.clear()
    lost: str | None = None
    try:
        case.run(folder)
    except (Lost, TimeoutError) as error:
        lost = f"{case.name}: {error}"
    except Exception:  # a case that cannot tell is no survival
        lost = f"{case.name}: the case itself failed: {traceback.format_exc()}"
    if lost:
        counts.lost.append(lost)
    if process.seen_tracebacks:
        counts.tracebacks.append(f"{case.name}: {process.seen_tracebacks[0]}")
    if not lost and not process.seen_tracebacks:
        counts.survived += 1
        shutil.rmtree(folder, ignore_errors=True)


def show(counted: Sequence[Counts]) -> None:
    table = Table("fault", "injected", "survived", "lost", "tracebacks", "seconds")
    rows = [(c.group, (c.injected, c.survived, len(c.lost), len(c.tracebacks)), c.seconds) for c in counted]
    for name, numbers, seconds in sorted(rows):
        table.add_row(name, *map(str, numbers), f"{seconds:.0f}")
    table.add_section()
    table.add_row("all", *(str(sum(column)) for column in zip(*(row[1] for row in rows), strict=True)), "")
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
