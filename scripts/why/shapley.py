"""Whose share is a gain: Shapley values of scale, centre and bonus over the eight cells of `ablation=mechanism`.

The share of a part is the mean, over the orders in which the parts are added to GRPO, of what adding it changes. Shares
add up to EMPG minus GRPO, seed by seed; the interval is a t interval over seeds.

    python -m scripts.why.shapley STUDY
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path

from empg_cli.stats.intervals import t_interval

PARTS = ("scale", "center", "bonus")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("study", type=Path)
    arguments = parser.parse_args()
    study = json.loads((arguments.study / "study.json").read_text())
    shares = [
        shapley(
            {cell_of(parts): value_of(arguments.study, cell_of(parts), seed, study["metric"]) for parts in subsets()}
        )
        for seed in study["seeds"]
    ]
    print(
        f"| part | share of EMPG - GRPO in {study['metric']} | 95 % t interval, {len(shares)} seeds |\n|---|---:|---|"
    )
    for part in (*PARTS, "all"):
        values = [sum(one.values()) if part == "all" else one[part] for one in shares]
        mean = sum(values) / len(values)
        found = t_interval(values) if len(values) > 1 else None
        print(f"| {part} | {mean:+.4f} | " + (f"[{found.low:+.4f}, {found.high:+.4f}] |" if found else "– |"))


def subsets() -> list[tuple[str, ...]]:
    return [parts for size in range(len(PARTS) + 1) for parts in itertools.combinations(PARTS, size)]


def cell_of(parts: tuple[str, ...]) -> str:
    """The variant in which these parts are switched on."""
    return "-".join(part for part in PARTS if part in parts) or "none"


def shapley(value: Mapping[str, float]) -> dict[str, float]:
    """Part -> its share, from the value of each of the eight variants."""
    shares = dict.fromkeys(PARTS, 0.0)
    for order in itertools.permutations(PARTS):
        for at, part in enumerate(order):
            gain = value[cell_of(order[: at + 1])] - value[cell_of(order[:at])]
            shares[part] += gain / math.factorial(len(PARTS))
    return shares


def value_of(study: Path, variant: str, seed: int, metric: str) -> float:
    """The last value of a metric in a cell's rows."""
    rows = [json.loads(line) for line in (study / f"{variant}-s{seed}" / "metrics.jsonl").read_text().splitlines()]
    return float([row[metric] for row in rows if row.get(metric) is not None][-1])


if __name__ == "__main__":
    main()
