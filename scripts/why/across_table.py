"""The main comparisons of all benchmarks together: `python -m scripts.why.tables main-across`.

Every arm beside the base of its benchmark, the better of the two baselines there. Two aggregates: the interquartile
mean over all seeds, whose interval is a bootstrap within benchmarks (arXiv 2108.13264), and the plain mean in which
every benchmark counts alike. Where benchmarks differ much in level the first is mostly that of the middle one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from empg_cli.stats.intervals import Estimate, iqm_difference, iqm_interval, t_interval
from scripts.why.records import member, values_of

STUDIES = ("main-alfworld-1250", "main-webshop", "main-deepsearch")
Values = Mapping[str, Mapping[int, float]]
"""Variant -> seed -> success rate."""


def across_table(records: Path, studies: Sequence[str] = STUDIES) -> str:
    """Markdown; arms that not every study has played are left out.

    Raises:
        FileNotFoundError: a study has no record.
    """
    archives = [records / f"{name}.tar.xz" for name in studies]
    found: list[Values] = [values_of(archive) for archive in archives]
    bases = [json.loads(member(archive, "study.json"))["base"] for archive in archives]
    head = ["arm", "IQM, %", "IQM − the bases'", "mean − the bases'", *(f"in {name}" for name in studies)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for arm in found[0]:
        if all(arm in values for values in found):
            lines.append([f"`{arm}`", *_cells(arm, found, bases)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(arm: str, found: Sequence[Values], bases: Sequence[str]) -> list[str]:
    pairs = [
        {seed: (value, values[base][seed]) for seed, value in values[arm].items() if seed in values[base]}
        for values, base in zip(found, bases, strict=True)
    ]
    gaps = [{seed: value - other for seed, (value, other) in of_study.items()} for of_study in pairs]
    scores = _points(iqm_interval([list(values[arm].values()) for values in found]), ".1f")
    if all(base == arm for base in bases):
        return [scores, "–", "–", *("base" for _ in bases)]
    own = [f"{100 * statistics.fmean(one.values()):+.1f}".replace("-", "−") for one in gaps]
    together = sorted(set.intersection(*(set(one) for one in gaps)))
    mean = t_interval([statistics.fmean(one[seed] for one in gaps) for seed in together])
    return [
        scores,
        _points(iqm_difference([list(one.values()) for one in pairs])),
        _points(mean),
        *("base" if arm == base else text for base, text in zip(bases, own, strict=True)),
    ]


def _points(found: Estimate, form: str = "+.1f") -> str:
    """In points; a bootstrap's interval need not have its value in the middle."""
    value, low, high = (f"{round(100 * number, 1) + 0.0:{form}}" for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]".replace("-", "−")
