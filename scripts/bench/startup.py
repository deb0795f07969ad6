"""What it costs to start: CPU seconds of commands, what they import, and the time to the first update.

    python scripts/bench/startup.py

Each command runs in a process of its own, with bytecode cached as on a user's second run. CPU seconds are the child's
user and system time, median of `--repeats`. The first update is that of `empg train` with default settings: 16 tasks,
groups of 8, the shipped tiny agent; measured until its row stands in metrics.jsonl, then the process is ended.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import ROOT, Report, argument_parser

HEAVY = ("torch", "transformers", "tokenizers", "hydra", "pydantic", "numpy", "rich", "wandb", "tantivy")
COMMANDS = (
    ("python -c pass", ["-c", "pass"]),
    ("empg --version", ["-m", "empg_cli", "--version"]),
    ("empg --help", ["-m", "empg_cli", "--help"]),
    ("empg train --help", ["-m", "empg_cli", "train", "--help"]),
    ("empg train --cfg job", ["-m", "empg_cli", "train", "--cfg", "job"]),
    ("empg show --metrics", ["-m", "empg_cli", "show", "--metrics"]),
    ("empg doctor", ["-m", "empg_cli", "doctor"]),
)
ONE_UPDATE = ("trainer.updates=2", "trainer.eval_before=false", "trainer.eval_every=0", "logger.console=quiet")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    report = Report("startup", options)
    with tempfile.TemporaryDirectory() as scratch:
        environ = child_environ(Path(scratch), options.threads)
        rows = []
        for label, arguments in COMMANDS:
            command = [sys.executable, *arguments]
            cpu_seconds(command, environ)  # writes the bytecode
            seconds = [cpu_seconds(command, environ) for _ in range(options.repeats)]
            rows.append([label, statistics.median(seconds), min(seconds), ", ".join(imported(command, environ)) or "-"])
        report.table("Commands", ["command", "CPU s", "least", "of the heavy packages, it imports"], rows)
        updates = [first_update(Path(scratch) / f"run-{n}", environ) for n in range(min(options.repeats, 3))]
        cpu, wall = map(statistics.median, zip(*updates, strict=True))
        report.table("From the shell to the first update", ["command", "CPU s", "wall s"], [["empg train", cpu, wall]])
    report.finish()


def child_environ(scratch: Path, threads: int) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONPYCACHEPREFIX": str(scratch / "bytecode"),
        "OMP_NUM_THREADS": str(threads),
        "WANDB_MODE": "disabled",
    }


def cpu_seconds(command: Sequence[str], environ: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(command: Sequence[str], environ: dict[str, str]) -> list[str]:
    python, *arguments = command
    shown = subprocess.run([python, "-X", "importtime", *arguments], env=environ, capture_output=True, text=True)
    names = set(re.findall(r"\|\s+(\w+)$", shown.stderr, re.MULTILINE))
    return [name for name in HEAVY if name in names]


def first_update(run_dir: Path, environ: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds from the start of the process to its first logged update."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "empg_cli", "train", f"run_dir={run_dir}", *ONE_UPDATE]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = run_dir / "metrics.jsonl"
    while not (rows.exists() and rows.read_text().strip()):
        if process.poll() is not None:
            raise SystemExit(f"`{' '.join(command)}` ended with {process.returncode} before its first update")
        time.sleep(0.05)
    wall = time.perf_counter() - start
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), wall


if __name__ == "__main__":
    main()
