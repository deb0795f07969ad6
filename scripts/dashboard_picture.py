"""Draw the dashboard as it stood at some update of a recorded run: the README's picture.

python scripts/dashboard_picture.py runs/... docs/images/dashboard.svg --update 18
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from rich.console import Console

from empg_cli.observe.panel import RunState, render
from empg_cli.runs.config_file import saved_config
from empg_cli.runs.evaluations import read_evaluations
from empg_cli.runs.rows import read_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--update", type=int, help="null: the last one")
    args = parser.parse_args()

    cfg = saved_config(args.run)
    rows = read_rows(args.run / "metrics.jsonl")
    until = args.update or max(rows)
    evaluations = dict(read_evaluations(args.run))
    now = 0.0
    title = f"{cfg.algo.name} on {cfg.benchmark.name}, seed {cfg.seed}"
    state = RunState(title, cfg.trainer.updates, clock=lambda: now)
    for update, row in sorted(rows.items()):
        if update > until:
            break
        now += row["perf/time_per_step"] or 0.0
        if update:
            state.record(update, {name: value for name, value in row.items() if value is not None})
        if update in evaluations:
            state.evaluated(update, evaluations[update])
    total = cfg.trainer.tasks_per_update * cfg.algo.group_size
    state.phase = ("rollout", total * 3 // 4, total)

    console = Console(record=True, width=90, file=io.StringIO(), force_terminal=True)
    console.print(render(state, console.width))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(console.export_svg(title="empg train"), encoding="utf-8")


if __name__ == "__main__":
    main()
