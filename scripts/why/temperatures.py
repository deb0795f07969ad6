"""Evaluate the last checkpoints of a study again, at other temperatures: is a difference one of the temperature?

    python -m scripts.why.temperatures studies/fair-confirmed docs/studies/records/fair-confirmed-temperatures.csv

Needs the run folders with their checkpoints, which records do not keep. Each run is first played as it was evaluated,
and must reach the very number that it logged. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from empg_cli.agents.agent import agents_of
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.benchmarks import make_benchmark
from empg_cli.evaluation.evaluate import evaluate
from empg_cli.model.loading import load_policy, reloaded
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.checkpoint import MODEL
from empg_cli.runs.config_file import saved_config
from empg_cli.runs.study import read_study
from scripts.why.recompute import last

METRIC = "eval/success_rate"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path, help="CSV: variant, seed, temperature, success_rate")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_rows(arguments.out)
    done = {(row[0], int(row[1])) for row in rows}
    for cell in read_study(arguments.study).cells:
        if (cell.variant, cell.seed) in done:
            continue
        found = evaluated(arguments.study / cell.folder, arguments.temperatures)
        rows += [[cell.variant, str(cell.seed), f"{t:g}", repr(rate)] for t, rate in found.items()]
        write_rows(arguments.out, rows)
        print(cell.folder, found, flush=True)


def evaluated(run: Path, temperatures: Sequence[float]) -> dict[float, float]:
    """Temperature -> success of the last checkpoint on the run's evaluation tasks, its own temperature first."""
    cfg = saved_config(run)
    checkpoint = sorted(run.glob("checkpoints/step-*"))[-1]
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    initial = load_policy(
        cfg.model,
        cfg.benchmark.name,
        words=closed_vocabulary(cfg.benchmark.name),
        seed=cfg.seed,
        device=torch.device("cpu"),
    )
    policy = reloaded(initial, checkpoint / MODEL, cfg.model)
    make_agent = agents_of(cfg, policy, benchmark, today=None)
    engine = TorchEngine(policy, make_agent().codec.stop_ids)
    found = {}
    for temperature in dict.fromkeys([cfg.rollout.eval_temperature, *temperatures]):
        rollout = cfg.rollout.model_copy(update={"eval_temperature": temperature})
        played = evaluate(engine, benchmark, make_agent, cfg.benchmark, rollout, seed=cfg.seed)
        found[temperature] = played.success_rate
        if (logged := last(run / "metrics.jsonl", METRIC)) != found[cfg.rollout.eval_temperature]:
            sys.exit(f"{run} logged {logged} and reaches {found[temperature]} here: another machine, or other code")
    return found


def read_rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        return []
    with path.open() as file:
        return list(csv.reader(file))[1:]


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["variant", "seed", "temperature", "success_rate"], *rows])


if __name__ == "__main__":
    main()
