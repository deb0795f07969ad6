"""Is this checkout as fast as another commit? Updates of the same training, in processes that take turns.

    python scripts/bench/against.py                                  # the commit before
    python scripts/bench/against.py 032f7dc experiment=webshop --repeats 5

The commit is checked out under build/bench/. CPU seconds are those of the whole command, start included; rollouts and
updates are wall seconds of the run's own clocks, without the first update, which pays for what is made once.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from common import ROOT, Report, argument_parser

UPDATES = 4
FIXED = (
    f"trainer.updates={UPDATES}",
    "trainer.eval_before=false",
    "trainer.eval_every=0",
    "trainer.checkpoint_every=0",
    "benchmark.eval_tasks=1",
    "logger.console=quiet",
    "logger.wandb.mode=disabled",
)
PARTS = {"CPU s": "cpu", "rollouts s": "timing_s/rollout", "updates s": "timing_s/update"}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD~1", help="what to compare with (HEAD~1)")
    parser.add_argument("overrides", nargs="*", default=["experiment=demo"], help="what to train (experiment=demo)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    report = Report("against", options)
    sides = {options.commit: checkout(options.commit), "this checkout": ROOT}
    taken: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in sides}
    for _ in range(options.repeats):
        for name, folder in sides.items():
            for part, seconds in train(folder, options.overrides, options.threads).items():
                taken[name][part].append(seconds)
    rows = [[name, *(statistics.median(taken[name][part]) for part in PARTS.values())] for name in sides]
    before, here = (taken[name] for name in sides)
    quotients = [
        statistics.median(new / old for new, old in zip(here[part], before[part], strict=True))
        for part in PARTS.values()
    ]
    report.table(
        f"{' '.join(options.overrides)}, {UPDATES} updates", ["", *PARTS], [*rows, ["this / that", *quotients]]
    )
    report.finish()


def checkout(commit: str) -> Path:
    asked = ["git", "rev-parse", "--short=12", commit]
    name = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    folder = ROOT / "build" / "bench" / name
    if not folder.is_dir():
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], cwd=ROOT, check=True)
    return folder


def train(folder: Path, overrides: list[str], threads: int) -> dict[str, float]:
    """Seconds of one training with the code of `folder`, by part."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(prefix="empg-bench-") as run_dir:
        command = [sys.executable, "-m", "empg_cli", "train", *overrides, *FIXED, f"run_dir={run_dir}/run"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} failed")
        rows = [json.loads(line) for line in (Path(run_dir) / "run" / "metrics.jsonl").read_text().splitlines()]
    clocks = {key: sum(row.get(key, 0.0) for row in rows[1:]) for key in PARTS.values() if key != "cpu"}
    return {"cpu": usage.ru_utime + usage.ru_stime, **clocks}


if __name__ == "__main__":
    main()
