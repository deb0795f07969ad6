"""Runs targets for `FUZZ_SECONDS` each and prints what they raised that they may not; exit code 1 where they did.

The inputs that were found lie in build/fuzz/: make a test of each.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FOUND = Path("build/fuzz")
ROUND = 500
"""Inputs of one seed of hypothesis."""
GRACE_S = 300
"""Beyond its time, for imports and for one input that hangs."""


class TooSlow(BaseException):
    """Of the alarm; no reader may catch it."""


def main(arguments: Sequence[str]) -> int:
    from scripts.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m scripts.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *TARGETS], help="targets; all by default", metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "600")), help="for each")
    parser.add_argument("--jobs", type=int, default=2, help="targets at once")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    FOUND.mkdir(parents=True, exist_ok=True)
    names = given.names or list(TARGETS)
    with ThreadPoolExecutor(given.jobs) as pool:
        found = list(pool.map(lambda name: _watch(name, given.seconds, given.seed), names))
    print(f"{sum(found)} faults in {len(names)} targets")
    return int(any(found))


def _watch(name: str, seconds: float, seed: int) -> int:
    """Fuzz a target in a process of its own, which may die or hang; returns how many faults it has."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    last = FOUND / f"{name}-last"
    process = context.Process(target=_fuzz, args=(name, seconds, seed, last, theirs))
    process.start()
    theirs.close()
    process.join(seconds + GRACE_S)
    if process.is_alive():
        process.kill()
        process.join()
    try:
        inputs, faults = ours.recv() if ours.poll(0) else (0, None)
    except EOFError:
        inputs, faults = 0, None
    if faults is None:
        kept = last.replace(FOUND / f"{name}-crash") if last.exists() else "none"
        faults = {"": f"the process ended with {process.exitcode} (or hung); its input: {kept}"}
    last.unlink(missing_ok=True)
    print(f"{name}: {inputs:,} inputs, {len(faults)} faults", flush=True)
    for fault in faults.values():
        print("  " + fault.replace("\n", "\n  "), flush=True)
    return len(faults)


def _fuzz(name: str, seconds: float, seed: int, last: Path, answer: Connection) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from scripts.fuzz.targets import TARGETS

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _alarm)
    faults: dict[str, str] = {}
    count = 0
    with tempfile.TemporaryDirectory(prefix=f"empg-fuzz-{name}-") as folder:
        target = TARGETS[name](Path(folder))
        end = time.monotonic() + seconds

        def one(value: Any) -> None:
            nonlocal count
            if time.monotonic() > end:
                return
            count += 1
            packed = pickle.dumps(value)
            last.write_bytes(packed)
            if fault := _fault(target, value):
                place, text = fault
                if place not in faults:
                    file = FOUND / f"{name}-{hashlib.sha256(packed).hexdigest()[:8]}"
                    file.write_bytes(packed)
                    faults[place] = f"{text}\n  input: {file}"

        limits = settings(
            max_examples=ROUND, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        number = seed
        while time.monotonic() < end:
            seeded(number)(limits(given(target.inputs)(one)))()
            number += 1
    answer.send((count, faults))


def _fault(target: Any, value: Any) -> tuple[str, str] | None:
    """Where, and what; None when all is well."""
    from empg_cli.benchmarks.base import UnscoredError
    from empg_cli.errors import UserError
    from empg_cli.rollout.engine import NoCompletion
    from empg_cli.services.errors import ServiceError

    began = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 10 * target.seconds)
    try:
        target.run(value)
    except (UserError, ServiceError, UnscoredError, NoCompletion):
        pass
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "empg_cli" in frame.filename] or frames
        place = f"{type(error).__name__} {ours[-1].filename}:{ours[-1].lineno}"
        return place, f"{place}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took = time.process_time() - began
    return ("slow", f"{took:.1f} s for one input") if took > target.seconds else None


def _alarm(*_: object) -> None:
    raise TooSlow
