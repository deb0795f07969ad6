"""What all speed scripts share: fair timing, the machine's own speed, tables, JSON.

    report = Report("rollout", options)             # options: parsed from `argument_parser(__doc__)`
    times = interleaved({"ours": ours, "plain": plain}, repeats=5)
    report.table("Rollout", ["what", "CPU s"], [[name, time.cpu] for name, time in times.items()])
    report.finish()

Other work on the machine disturbs every number. So variants take turns (A B A B ...), medians are shown, CPU seconds
stand beside wall time, and the report says how fast this machine multiplied matrices just before and just after.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "tokenizers", "trl", "numpy", "tantivy")


@dataclass(slots=True)
class Timing:
    """Seconds of each repetition of one variant."""

    cpu_s: list[float] = field(default_factory=list)
    """Of this process, all its threads."""
    wall_s: list[float] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_s)

    @property
    def wall(self) -> float:
        return statistics.median(self.wall_s)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add one repetition: what the block takes."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu_s.append(time.process_time() - cpu)
        self.wall_s.append(time.perf_counter() - wall)


def interleaved(
    variants: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 1, seconds: float | None = None
) -> dict[str, Timing]:
    """Time the variants in turn, `repeats` rounds after `warmup` rounds that do not count.

    Args:
        seconds: stop early, after a whole round, when the counted rounds have taken this much wall time.
    """
    timings = {name: Timing() for name in variants}
    for _ in range(warmup):
        for run in variants.values():
            run()
    started = time.perf_counter()
    for _ in range(repeats):
        for name, run in variants.items():
            gc.collect()
            with timings[name].measure():
                run()
        if seconds is not None and time.perf_counter() - started > seconds:
            break
    return timings


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times less CPU time `fast` takes: the median over rounds, whose two halves saw the same machine."""
    return statistics.median(a / b for a, b in zip(slow.cpu_s, fast.cpu_s, strict=True))


def growth_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of the least-squares fit values = a * sizes ** b: 1 is linear, 2 quadratic."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(value) for value in values]).slope


def peak_memory_mb(run: Callable[[], object]) -> float:
    """By how many MB (2**20 bytes) `run` raises the resident memory of this process at its highest (Linux).

    Memory that was freed before may be used again unseen, so measure in a fresh process: `fresh_process`.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is resident now
    before = _status_mb("VmRSS")
    run()
    return _status_mb("VmHWM") - before


def resident_peak_mb(run: Callable[[], object]) -> float:
    """MB (10**6 bytes) that this process has in memory at its highest while `run` runs (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return _status_mb("VmHWM") * 2**20 / 1e6


def fresh_process(*arguments: str) -> Any:
    """Run the calling script again with these arguments; returns the JSON of the last line it prints."""
    command = [sys.executable, sys.argv[0], *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def gemm_gflops(rows: int, inner: int, columns: int, *, repeats: int = 7) -> float:
    """fp32 GFLOP/s (wall time, best of `repeats`) of [rows, inner] @ [inner, columns] with torch's threads as set."""
    import torch

    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    flops = 2 * rows * inner * columns
    calls = max(1, round(1e9 / flops))
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            left @ right
        best = min(best, (time.perf_counter() - start) / calls)
    return flops / best / 1e9


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what every script takes: --json and --threads."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the tables there")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (1)")
    return parser


class Report:
    """The tables of one script, with what is needed to read them: machine, versions, date, speed at that time."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        import torch

        torch.set_num_threads(options.threads)
        self._name, self._json = name, options.json
        self._facts = {"command": " ".join(["python", *_words()]), "threads": options.threads, **machine()}
        self._gemm = [gemm_gflops(1024, 1024, 1024)]
        self._tables: list[dict[str, Any]] = []
        print(f"{name}: {self._facts['date']}, {self._facts['cpu']}, {self._facts['cores']} cores")
        print(f"{self._facts['versions']}, {options.threads} thread(s), GEMM {self._gemm[0]:.0f} GFLOP/s\n", flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *notes: str) -> None:
        """Print a table and keep it. Numbers are shown with three significant digits; text as it is."""
        cells = [[shown(cell) for cell in row] for row in rows]
        self._tables.append({"title": title, "columns": list(columns), "rows": cells, "notes": list(notes)})
        print(title)
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for first, *rest in (columns, *cells):
            aligned = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            print("  " + "  ".join([first.ljust(widths[0]), *aligned]))
        print("".join(f"  {note}\n" for note in notes), flush=True)

    def finish(self) -> None:
        """Measure the machine again and write the JSON file, if one is asked for."""
        self._gemm.append(gemm_gflops(1024, 1024, 1024))
        facts = self._facts | {"gemm_gflops": [round(rate, 1) for rate in self._gemm]}
        print(f"GEMM before and after: {self._gemm[0]:.0f}, {self._gemm[1]:.0f} GFLOP/s")
        if self._json:
            self._json.parent.mkdir(parents=True, exist_ok=True)
            content = {"name": self._name, "facts": facts, "tables": self._tables}
            self._json.write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, Any]:
    installed = [f"{name} {_version(name)}" for name in PACKAGES if _version(name)]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "versions": ", ".join([f"Python {platform.python_version()}", *installed]),
        "commit": _commit(),
    }


def shown(cell: object) -> str:
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else str(cell)
    if cell == 0 or not math.isfinite(cell):
        return f"{cell:g}"
    return f"{cell:,.{max(0, 2 - math.floor(math.log10(abs(cell))))}f}"


def _words() -> list[str]:
    """The command line, less --json and the places of this machine."""
    script, *words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    if "--json" in words:
        del words[words.index("--json") : words.index("--json") + 2]
    return [f"scripts/bench/{Path(script).name}", *words]


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _status_mb(field_name: str) -> float:
    found = re.search(rf"^{field_name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, f"/proc/self/status has no {field_name}"
    return int(found[1]) / 1024
