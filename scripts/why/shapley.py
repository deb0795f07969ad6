"""Whose share is a gain: Shapley values of scale, centre and bonus over the eight cells of `ablation=mechanism`,
which `ablation=controls` has as well, under other names.

The share of a part is the mean, over the orders in which the parts are added to GRPO, of what adding it changes. Shares
add up to EMPG minus GRPO, seed by seed; the interval is a t interval over the seeds of which all eight cells are done.

    python -m scripts.why.shapley STUDY
    python -m scripts.why.tables controls-shapley     # the same from a finished record, in points
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empg_cli.stats.intervals import t_interval
from scripts.why.predictions import Values, points
from scripts.why.recompute import NotComparable, done_values, read_study
from scripts.why.records import markdown

UNUSED = 10
"""The first seed that did not choose the agent of the controls: `agent-1250` had 0 to 9."""
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
    found = done_values(folder, study)
    values: Mapping[str, Mapping[int, float]] = of_controls(found) if study.get("name") == "controls" else found
    cells = [cell_of(parts) for parts in subsets()]
    if absent := [name for name in cells if name not in values]:
        raise NotComparable(f"{folder} has no run that is done of {', '.join(absent)}: shares need all eight cells")
    seeds = sorted(set.intersection(*(set(values[name]) for name in cells)))
    if not seeds:
        raise NotComparable(f"{folder} has no seed of which all eight cells are done")
    shares = [shapley({name: values[name][seed] for name in cells}) for seed in seeds]
    return study["metric"], shares, [seed for seed in study["seeds"] if seed not in seeds]


def of_controls(values: Values) -> dict[str, Mapping[int, float]]:
    """The eight cells under the names that `ablation=mechanism` has for them; those that are there."""
    return {cell: values[name] for cell, name in IN_CONTROLS.items() if name in values}


def shares_table(values: Values, study: Mapping[str, Any]) -> str:
    """Markdown, in points: of all seeds of `ablation=controls`, and of those before and from `UNUSED` on apart.

    Raises:
        NotComparable: some seed has not all eight cells.
    """
    found = of_controls(values)
    seeds = sorted(study["seeds"])
    if absent := [seed for seed in seeds if any(seed not in found.get(cell_of(parts), {}) for parts in subsets())]:
        raise NotComparable(f"{len(absent)} of {len(seeds)} seeds have not all eight cells; nothing is said before")
    shares = {seed: shapley({cell: runs[seed] for cell, runs in found.items()}) for seed in seeds}
    groups = [seeds, [seed for seed in seeds if seed < UNUSED], [seed for seed in seeds if seed >= UNUSED]]
    titles = ["all seeds", f"seeds below {UNUSED}", f"seeds from {UNUSED} on"]
    lines = [["part", *titles], ["---", *["---:"] * 3]]
    for part in (*PARTS, "all"):
        of_part = {seed: sum(one.values()) if part == "all" else one[part] for seed, one in shares.items()}
        lines.append([part, *(points([of_part[seed] for seed in group]) if group else "–" for group in groups)])
    return markdown(lines)


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
