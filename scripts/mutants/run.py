"""Run the related tests on every mutant: `python -m scripts.mutants [NAME ...] [--jobs N]`, or `make mutants`.

Each mutant lives in a temporary copy of the tree; your files stay as they are. One line for each: killed by the test
named, survived, or broken (its tests could not run). The tree must pass the same tests first, for a test that always
fails kills nothing. Exit code 1 if a mutant survives or is broken, 2 if the run cannot begin.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from scripts.mutants import MUTANTS
from scripts.mutants.mutant import Misplaced, Mutant

ROOT = Path(__file__).resolve().parents[2]
_EVERYWHERE = shutil.ignore_patterns(".*", "__pycache__")
"""Hidden folders (.git, environments) and caches."""
_RESULTS = {"runs", "multirun", "outputs", "build", "dist"}
"""Folders of the checkout, not of the package: `src/empg_cli/runs` is code."""
SLOW_IMPORTS = ["torch", "transformers.models.qwen2.modeling_qwen2", "scipy.stats", "hydra", "pydantic"]
"""Loaded once; the process of every mutant is forked from there. Nothing of empg's, which changes."""
_FAILURE = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.MULTILINE)
_Result = TypeVar("_Result")
Trees = SimpleQueue[Path]
"""The copies that nobody works in."""


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once; default: the cores")
    parser.add_argument("--time-limit", type=float, default=300.0, help="seconds for the tests of one mutant")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--no-baseline", action="store_true", help="trust that the tree passes its tests")
    options = parser.parse_args(words)
    by_name = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in options.names if name not in by_name]:
        parser.error(f"no mutant is called {', '.join(unknown)}; --list names all of them")
    chosen = [by_name[name] for name in options.names] or list(MUTANTS)
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name:40} {mutant.fault}")
        return 0
    try:
        for mutant in chosen:
            mutant.applied(ROOT)
    except Misplaced as error:
        parser.error(str(error))
    # Two versions of a file may have one size and one second of change, so no compiled file may be trusted.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    multiprocessing.set_forkserver_preload(SLOW_IMPORTS)
    with ExitStack() as stack:
        trees = Trees()
        for _ in range(min(options.jobs, len(chosen))):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="empg-mutants-"))
            trees.put(Path(shutil.copytree(ROOT, Path(folder) / "empg", ignore=left_out)))
        if not options.no_baseline and (fault := baseline_fault(chosen, trees, options.jobs)):
            print(f"the tree as it is does not pass: {fault}", file=sys.stderr)
            return 2
        return run_all(chosen, trees, jobs=options.jobs, time_limit=options.time_limit)


def left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy of the tree does without."""
    return _EVERYWHERE(folder, names) | (_RESULTS.intersection(names) if Path(folder) == ROOT else set())


def baseline_fault(chosen: Sequence[Mutant], trees: Trees, jobs: int) -> str | None:
    """The first test that fails without any mutant, or None."""
    files = sorted({test for mutant in chosen for test in mutant.tests})
    parts = [files[start::jobs] for start in range(min(jobs, len(files)))]
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda part: _in_a_tree(trees, lambda tree: run_tests(tree, part, None)), parts))
    return next((verdict for code, verdict in results if code != 0), None)


def run_all(chosen: Sequence[Mutant], trees: Trees, *, jobs: int, time_limit: float) -> int:
    def judged(mutant: Mutant) -> str:
        began = time.monotonic()
        word, detail = _in_a_tree(trees, lambda tree: judge(tree, mutant, time_limit))
        print(f"{word:8} {mutant.name:40} {time.monotonic() - began:5.0f} s  {detail}", flush=True)
        return word

    with ThreadPoolExecutor(jobs) as pool:
        count = Counter(pool.map(judged, chosen))
    print(f"{len(chosen)} mutants: {count['killed']} killed, {count['survived']} survived, {count['broken']} broken")
    return 0 if count["killed"] == len(chosen) else 1


def judge(tree: Path, mutant: Mutant, time_limit: float) -> tuple[str, str]:
    """`killed`, `survived` or `broken`, and by which test or why. The tree is left as it was."""
    file = tree / mutant.path
    plain = file.read_bytes()
    file.write_text(mutant.applied(tree), encoding="utf-8")
    try:
        code, verdict = run_tests(tree, mutant.tests, time_limit)
    finally:
        file.write_bytes(plain)
    if code == 0:
        return "survived", mutant.fault
    return ("killed", f"by {verdict}") if code == 1 and verdict.startswith("tests/") else ("broken", verdict)


def run_tests(tree: Path, tests: Sequence[str], time_limit: float | None) -> tuple[int | None, str]:
    """pytest's exit code (None: out of time), and the first test that failed or what kept them from running."""
    report = tree / "report.txt"
    process = multiprocessing.get_context("forkserver").Process(target=_pytest, args=(tree, tests, report))
    process.start()
    process.join(time_limit)
    if process.is_alive():
        process.kill()
        process.join()
        return None, f"not done after {time_limit:g} s"
    text = report.read_text(encoding="utf-8", errors="replace") if report.is_file() else ""
    failure = _FAILURE.search(text)
    return process.exitcode, failure[1] if failure else text.strip()[-300:]


def _pytest(tree: Path, tests: Sequence[str], report: Path) -> None:
    import pytest

    sys.dont_write_bytecode = True
    os.chdir(tree)
    with report.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        # A busy machine misses deadlines, and other examples each time would give other verdicts.
        options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-profile=ci"]
        sys.exit(int(pytest.main([*options, *(f"tests/{test}" for test in tests)])))


def _in_a_tree(trees: Trees, work: Callable[[Path], _Result]) -> _Result:
    tree = trees.get()
    try:
        return work(tree)
    finally:
        trees.put(tree)
