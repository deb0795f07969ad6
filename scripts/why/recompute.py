"""The numbers of a study anew, from nothing but the files of its cells: an auditor's script.

It imports nothing of empg. Means over seeds, 95 % t intervals, paired differences with theirs, exact sign-flip p values
and Holm's correction are computed from the formulas over the cells whose run is done, and compared with `ablation.csv`.
Any difference above 1e-9, a number that only one side has, and a variant that only one side has end with exit code 1; a
study that cannot be compared, as its cells are not of the same code, with 2.

    python scripts/why/recompute.py STUDY [STUDY ...]
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

EXACT = 20
"""Pairs up to which all sign flips are counted here; above it the p value of the table is not checked."""
Values = dict[str, dict[int, float]]
"""Variant -> seed -> value; a variant without any run that is done is left out."""


class NotComparable(Exception):  # noqa: N818 (a sentence for the user)
    """In a sentence, why there are no numbers."""


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(str(__doc__).strip())
        return 0 if arguments else 2
    worst = 0
    for name in arguments:
        try:
            worst = max(worst, check(Path(name)))
        except NotComparable as error:
            print(error)
            worst = 2
    return worst


def check(folder: Path) -> int:
    study = read_study(folder)
    values = done_values(folder, study)
    for said in missing(study, values):
        print(f"{folder.name}: {said}")
    table = read_table(folder)
    wrong = 0
    computed = numbers(values, study["base"])
    for name in dict.fromkeys([*values, *table]):
        rows, runs = table.get(name, []), values.get(name, {})
        if not runs or len(rows) != 1:
            wrong += 1
            print(f"{folder.name} {name}: {len(runs)} runs that are done, {len(rows)} rows in ablation.csv")
            continue
        for key, mine in computed[name].items():
            theirs = float(rows[0][key]) if rows[0][key] else None
            if mine != theirs and (mine is None or theirs is None or not abs(theirs - mine) <= 1e-9):
                wrong += 1
                found, shown = ("nothing" if number is None else repr(number) for number in (mine, theirs))
                print(f"{folder.name} {name} {key}: {found} from the runs, {shown} in ablation.csv")
        known = [f"  {key} {mine:+.4f}" for key, mine in computed[name].items() if mine is not None and key != "seeds"]
        print(f"{folder.name} {name}: {len(runs)} seeds{''.join(known)}")
    if any("p_holm" not in row for row in computed.values()):
        print(f"{folder.name}: p values are not checked where there are more than {EXACT} pairs")
    return int(wrong > 0)


def numbers(values: Values, base: str) -> dict[str, dict[str, float | None]]:
    """Variant -> column of ablation.csv -> number, None where there is none. Columns that are not checked are left out:
    p of more than `EXACT` pairs, and with one of these every p after Holm."""
    paired = {name: pairs(runs, values.get(base, {})) for name, runs in values.items() if name != base}
    paired = {name: gaps for name, gaps in paired.items() if len(gaps) > 1}
    p_values = {name: sign_flip(gaps) for name, gaps in paired.items() if len(gaps) <= EXACT}
    corrected = holm(p_values)
    found: dict[str, dict[str, float | None]] = {}
    for name, runs in values.items():
        low, high = interval(list(runs.values()))
        row = {"seeds": float(len(runs)), "mean": statistics.fmean(runs.values()), "low": low, "high": high}
        gaps = paired.get(name, [])
        low, high = interval(gaps)
        row |= {"difference": statistics.fmean(gaps) if gaps else None, "difference_low": low, "difference_high": high}
        if name in p_values or not gaps:
            row["p"] = p_values.get(name)
        if len(p_values) == len(paired):
            row["p_holm"] = corrected.get(name)
        found[name] = row
    return found


def read_study(folder: Path) -> dict[str, Any]:
    """
    Raises:
        NotComparable: the folder has no study in it.
    """
    study = read(folder / "study.json")
    if not study:
        raise NotComparable(f"{folder} is no study: it has no study.json that can be read")
    return study


def done_values(folder: Path, study: Mapping[str, Any]) -> Values:
    """The last value of the metric of every cell whose run is done.

    Raises:
        NotComparable: these runs were not made by the same code, so differences would be of code too.
    """
    values: Values = {}
    made_by: dict[str, list[str]] = {}
    for cell in study["cells"]:
        run = folder / f"{cell['variant']}-s{cell['seed']}"
        if read(run / "summary.json").get("exit_code") != 0:
            continue
        value = last(run / "metrics.jsonl", study["metric"])
        if value is None:
            continue
        values.setdefault(cell["variant"], {})[cell["seed"]] = value
        facts = read(run / "run.json")
        code = ", before ".join(map(str, (facts.get("code"), *facts.get("code_before", []))))
        made_by.setdefault(code, []).append(run.name)
    if len(made_by) > 1:
        each = "; ".join(f"{code}: {', '.join(cells)}" for code, cells in made_by.items())
        raise NotComparable(f"{folder.name}: the cells are not of the same code, so they are not compared ({each})")
    return values


def missing(study: Mapping[str, Any], values: Values) -> list[str]:
    """Which arms of the plan have no run that is done, in sentences."""
    planned = dict.fromkeys(cell["variant"] for cell in study["cells"])
    said = [f"{name} has no run that is done" for name in planned if name not in values]
    return said if study["base"] in values else [*said, f"without {study['base']}, the base, there are no differences"]


def read_table(folder: Path) -> dict[str, list[dict[str, str]]]:
    """
    Raises:
        NotComparable: there is none.
    """
    path = folder / "ablation.csv"
    if not path.is_file():
        raise NotComparable(f"{folder.name} has no ablation.csv to compare with: `empg ablate` writes it")
    table: dict[str, list[dict[str, str]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            table.setdefault(row["variant"], []).append(row)
    return table


def read(path: Path) -> dict[str, Any]:
    """Empty where there is no such file, or half of one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def last(path: Path, metric: str) -> float | None:
    if not path.is_file():
        return None
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [row[metric] for row in rows if row.get(metric) is not None]
    return float(found[-1]) if found else None


def pairs(runs: dict[int, float], base: dict[int, float]) -> list[float]:
    return [value - base[seed] for seed, value in sorted(runs.items()) if seed in base]


def interval(values: list[float]) -> tuple[float | None, float | None]:
    """95 % t interval of the mean; none where there is no spread."""
    if len(values) < 2 or max(values) - min(values) <= 1e-12 * max(map(abs, values)):
        return None, None
    mean, half = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half *= float(stats.t.ppf(0.975, len(values) - 1))
    return mean - half, mean + half


def sign_flip(gaps: list[float]) -> float:
    """Share of the sign patterns whose sum is at least as far from 0; sums apart by rounding alone are equal."""
    sums = np.zeros(1)
    for gap in gaps:
        sums = np.concatenate([sums - gap, sums + gap])
    rounding = 1e-12 * math.fsum(map(abs, gaps))
    return float((np.abs(sums) >= abs(math.fsum(gaps)) - rounding).mean())


def holm(p_values: dict[str, float]) -> dict[str, float]:
    corrected, running = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = running
    return corrected


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
