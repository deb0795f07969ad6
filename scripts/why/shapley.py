"""Whose share is a gain: Shapley values of scale, centre and bonus over the eight cells of `ablation=mechanism`,
which `ablation=controls` has as well, under other names.

The share of a part is the mean, over the orders in which the parts are added to GRPO, of what adding it changes. Shares
add up to EMPG minus GRPO, seed by seed; the interval is a t interval over the seeds of which all eight cells are done.

    python -m scripts.why.shapley STUDY
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from empg_cli.stats.intervals import t_interval
from scripts.why.recompute import NotComparable, done_values, read_study

PARTS = ("scale", "center", "bonus")
IN_CONTROLS = {
    "none": "grpo",
    "scale": "scaling-uncentred",
    "center": "center",
    "bonus": "bonus-uncentred",
    "scale-center": "scaling",
    "scale-bonus": "empg-uncentred",
    "center-bonus": "bonus",
    "scale-center-bonus": "empg",
}
"""What `ablation=controls` calls each cell. GRPO is EMPG with all three parts off, bit for bit (tests/e2e)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("study", type=Path)
    arguments = parser.parse_args()
    try:
        metric, shares, left_out = shares_of(arguments.study)
    except NotComparable as error:
        parser.error(str(error))
    print(f"| part | share of EMPG - GRPO in {metric} | 95 % t interval, {len(shares)} seeds |\n|---|---:|---|")
    for part in (*PARTS, "all"):
        values = [sum(one.values()) if part == "all" else one[part] for one in shares]
        mean = sum(values) / len(values)
        found = t_interval(values) if len(values) > 1 else None
        print(f"| {part} | {mean:+.4f} | " + (f"[{found.low:+.4f}, {found.high:+.4f}] |" if found else "– |"))
    if left_out:
        print(f"\nLeft out, as not all eight of their cells are done: seeds {', '.join(map(str, left_out))}.")
    return 0


def shares_of(folder: Path) -> tuple[str, list[dict[str, float]], list[int]]:
    """The metric, the shares of every seed of which all eight cells are done, and the other seeds.

    Raises:
        NotComparable: a cell has no run that is done, no seed has all, or they were made by different code.
    """
    study = read_study(folder)
    values = done_values(folder, study)
    if study.get("name") == "controls":
        values = {cell: values[name] for cell, name in IN_CONTROLS.items() if name in values}
    cells = [cell_of(parts) for parts in subsets()]
    if absent := [name for name in cells if name not in values]:
        raise NotComparable(f"{folder} has no run that is done of {', '.join(absent)}: shares need all eight cells")
    seeds = sorted(set.intersection(*(set(values[name]) for name in cells)))
    if not seeds:
        raise NotComparable(f"{folder} has no seed of which all eight cells are done")
    shares = [shapley({name: values[name][seed] for name in cells}) for seed in seeds]
    return study["metric"], shares, [seed for seed in study["seeds"] if seed not in seeds]


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


if __name__ == "__main__":
    sys.exit(main())
