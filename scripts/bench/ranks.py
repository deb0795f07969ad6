"""How many more updates two processes make than one, each on one thread: `empg train` as it is, with dist=node.

    python scripts/bench/ranks.py            # about 10 CPU minutes
    python scripts/bench/ranks.py --sizes 1 2 4 --keep DIR   # run folders for scripts/scale_model.py

A random model of about 30 million parameters plays generated ALFWorld games in transcript context. Runs of one and of
two processes take turns; each row of metrics.jsonl says how long its update took and where the time went. The first
update of a run, which meets every code path anew, does not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Report, argument_parser

PHASES = ("rollout", "logprob", "update")


def words(size: int, updates: int, hidden: int, folder: Path) -> list[str]:
    arch = f"{{hidden_size:{hidden},num_layers:8,num_heads:8,num_kv_heads:8,mlp_size:{7 * hidden // 2}}}"
    return [
        "benchmark=alfworld",
        "benchmark.train_games=16",
        "benchmark.max_steps=6",
        "benchmark.eval_tasks=1",
        "algo=empg",
        "algo.group_size=8",
        "rollout=transcript",
        "rollout.max_new_tokens=8",
        "model=tiny-scratch",
        f"model.arch={arch}",
        "trainer.device=cpu",
        "trainer.threads=1",
        f"trainer.updates={updates}",
        "trainer.tasks_per_update=8",
        "trainer.minibatches=1",
        "trainer.eval_before=false",
        "trainer.eval_every=0",
        "trainer.checkpoint_every=0",
        "trainer.health.preflight=off",
        "logger.wandb.mode=disabled",
        "logger.console=quiet",
        f"run_dir={folder}",
        *(["dist=node", f"dist.processes={size}", "dist.reshard=false"] if size > 1 else []),
    ]


def rows_of(size: int, updates: int, hidden: int, folder: Path) -> list[dict[str, Any]]:
    """Of the updates that count."""
    command = [sys.executable, "-m", "empg_cli", "train", *words(size, updates, hidden, folder)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["update"] > 1]


def median(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(statistics.median(row[name] for row in rows))


def parameters(folder: Path) -> int:
    count: int = json.loads((folder / "run.json").read_text())["model"]["parameters"]
    return count


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2], help="processes of the runs (default: 1 2)")
    parser.add_argument("--hidden", type=int, default=512, help="width of the model (default: 512)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the run folders there, as ROUND/PROCESSES")
    options = parser.parse_args()
    report = Report("ranks", options)
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in options.sizes}
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        for number in range(options.rounds):
            for size in options.sizes:
                found[size] += rows_of(size, options.updates, options.hidden, place / str(number) / str(size))
        count = parameters(place / "0" / str(options.sizes[0]))
    first, *others = options.sizes
    table: list[list[object]] = []
    for label, key in [*((phase, f"timing_s/{phase}") for phase in PHASES), ("whole update", "perf/time_per_step")]:
        before = median(found[first], key)
        after = [median(found[size], key) for size in others]
        table.append([label, before, *(cell for now in after for cell in (now, f"{before / now:.2f}"))])
    report.table(
        f"An update of {count / 1e6:.0f} million parameters: 64 episodes of 6 turns, wall seconds",
        ["part", "1 process", *(name for size in others for name in (f"{size} processes", "times faster"))],
        table,
        f"Medians of {len(found[first])} updates each.",
    )
    report.finish()


if __name__ == "__main__":
    main()
