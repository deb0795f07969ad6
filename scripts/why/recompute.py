"""The numbers of a study anew, from nothing but the `metrics.jsonl` of its cells: an auditor's script.

It imports nothing of empg. Means over seeds, 95 % t intervals, paired differences with theirs, exact sign-flip p values
and Holm's correction are computed from the formulas and compared with `ablation.csv`; any difference above 1e-9 ends
with exit code 1.

    python scripts/why/recompute.py STUDY [STUDY ...]
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from pathlib import Path

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

EXACT = 20
"""Pairs up to which all sign flips are counted here; above it the p value of the table is not checked."""


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(str(__doc__).strip())
        return 0 if len(sys.argv) > 1 else 2
    return max(check(Path(name)) for name in sys.argv[1:])


def check(folder: Path) -> int:
    study = json.loads((folder / "study.json").read_text())
    values: dict[str, dict[int, float]] = {}
    for variant in dict.fromkeys(cell["variant"] for cell in study["cells"]):
        found = {
            seed: last(folder / f"{variant}-s{seed}" / "metrics.jsonl", study["metric"]) for seed in study["seeds"]
        }
        if known := {seed: value for seed, value in found.items() if value is not None}:
            values[variant] = known
    base = values[study["base"]]
    paired = {name: pairs(runs, base) for name, runs in values.items() if name != study["base"]}
    p_values = {name: sign_flip(gaps) for name, gaps in paired.items() if 2 <= len(gaps) <= EXACT}
    corrected = holm(p_values) if len(p_values) == len(paired) else {}
    with (folder / "ablation.csv").open() as file:
        table = {row["variant"]: row for row in csv.DictReader(file)}
    wrong = 0
    for name, runs in values.items():
        numbers = {"mean": statistics.fmean(runs.values()), "seeds": float(len(runs))}
        numbers |= interval("low", "high", list(runs.values()))
        if name in paired and len(paired[name]) > 1:
            numbers["difference"] = statistics.fmean(paired[name])
            numbers |= interval("difference_low", "difference_high", paired[name])
            numbers |= {"p": p_values[name]} if name in p_values else {}
            numbers |= {"p_holm": corrected[name]} if name in corrected else {}
        for key, mine in numbers.items():
            theirs = table[name][key]
            if theirs == "" or abs(float(theirs) - mine) > 1e-9:
                wrong += 1
                print(f"{folder.name} {name} {key}: {mine!r} from the runs, {theirs or 'nothing'} in ablation.csv")
        shown = "".join(f"  {key} {mine:+.4f}" for key, mine in numbers.items() if key != "seeds")
        print(f"{folder.name} {name}: {len(runs)} seeds{shown}")
    if len(p_values) < len(paired):
        print(f"{folder.name}: p values are not checked where there are more than {EXACT} pairs")
    return int(wrong > 0)


def last(path: Path, metric: str) -> float | None:
    if not path.is_file():
        return None
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [row[metric] for row in rows if row.get(metric) is not None]
    return float(found[-1]) if found else None


def pairs(runs: dict[int, float], base: dict[int, float]) -> list[float]:
    return [value - base[seed] for seed, value in sorted(runs.items()) if seed in base]


def interval(low: str, high: str, values: list[float]) -> dict[str, float]:
    """95 % t interval of the mean; none where there is no spread."""
    if len(values) < 2 or max(values) - min(values) < 1e-12:
        return {}
    mean, half = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half *= float(stats.t.ppf(0.975, len(values) - 1))
    return {low: mean - half, high: mean + half}


def sign_flip(gaps: list[float]) -> float:
    """Share of the sign patterns whose sum is at least as far from 0."""
    sums = np.zeros(1)
    for gap in gaps:
        sums = np.concatenate([sums - gap, sums + gap])
    return float((np.abs(sums) >= abs(math.fsum(gaps)) * (1 - 1e-12)).mean())


def holm(p_values: dict[str, float]) -> dict[str, float]:
    corrected, running = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = running
    return corrected


if __name__ == "__main__":
    sys.exit(main())
