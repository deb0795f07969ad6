"""The main comparisons: `python -m scripts.why.tables main-across main-across-1250 main-primary main-webshop-pairs`.

Over all benchmarks every arm is beside the base of each, the better of the two baselines there. Two aggregates: the
interquartile mean over all seeds, whose interval is a bootstrap within benchmarks (arXiv 2108.13264), and the plain
mean in which every benchmark counts alike. Where benchmarks differ much in level the first is mostly the middle one's.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.stats.intervals import Estimate, iqm_difference, iqm_interval, t_interval
from empg_cli.stats.paired import holm, sign_flip_test
from scripts.why.predictions import one as difference_of
from scripts.why.predictions import p_text, points
from scripts.why.recompute import NotComparable
from scripts.why.records import curves, markdown, runs_of, study_of, values_of

ACROSS = {
    "main-across": ("main-alfworld", "main-webshop", "main-deepsearch"),
    "main-across-1250": ("main-alfworld-1250", "main-webshop", "main-deepsearch"),
}
"""The agents that ship, and with the ALFWorld agent that was chosen because EMPG had gained with it."""
PRIMARY = ("main-alfworld", "main-alfworld-1250", "main-webshop", "main-deepsearch")
PAIRS = (
    ("empg", "grpo-entropy"),
    ("empg", "permuted"),
    ("dapo-empg", "dapo"),
    ("scaling", "base"),
    ("bonus", "base"),
    ("scaling", "bonus"),
    ("hgpo", "base"),
    ("graphgpo", "base"),
)
"""What the arms are there for, beside `empg` − base."""
METRICS = {
    "success": "eval/success_rate",
    "score": "eval/score",
    "ID": "eval/id/success_rate",
    "OOD": "eval/ood/success_rate",
}
"""Title -> metric. A score is told where it says more than success: on WebShop it counts what is met in part."""
Values = Mapping[str, Mapping[int, float]]
"""Variant -> seed -> success rate."""


@dataclass(frozen=True, slots=True)
class Main:
    """A finished main comparison."""

    name: str
    values: Values
    base: str
    code: str

    def pairs(self, arm: str) -> dict[int, tuple[float, float]]:
        return {seed: (value, self.values[self.base][seed]) for seed, value in self.values[arm].items()}


def finished(records: Path, name: str) -> Main:
    """
    Raises:
        FileNotFoundError: the study has no record.
        NotComparable: some of its cells are not done.
    """
    archive = records / f"{name}.tar.xz"
    study, values = study_of(archive), values_of(archive)
    cells = study["cells"]
    if absent := sum(cell["seed"] not in values.get(cell["variant"], {}) for cell in cells):
        raise NotComparable(f"{archive}: {absent} of {len(cells)} cells are not done; nothing is said before")
    (code,) = {run["code"] for _, _, run in runs_of(archive)}  # `empg ablate` plays no cells of other code
    return Main(name, values, study["base"], code)


def across_table(records: Path, name: str) -> str:
    """Markdown; arms that not every study has played are left out, and what is a base somewhere has no difference.

    Raises:
        NotComparable: a study is not finished, or they have other seeds or were made by other code.
    """
    found = [finished(records, study) for study in ACROSS[name]]
    for what, values in (
        ("seeds", [str(sorted(one.values[one.base])) for one in found]),
        ("code", [one.code for one in found]),
    ):
        if len(set(values)) > 1:
            told = ", ".join(f"{value} in {one.name}" for value, one in zip(values, found, strict=True))
            raise NotComparable(f"{name}: the studies are not of the same {what}: {told}")
    lines = [["arm", "IQM, %", "IQM − the bases'", "mean − the bases'", *(f"in `{study.name}`" for study in found)]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for arm in found[0].values:
        if all(arm in study.values for study in found):
            lines.append([f"`{arm}`", *_cells(arm, found)])
    return markdown(lines)


def _cells(arm: str, found: Sequence[Main]) -> list[str]:
    pairs = [study.pairs(arm) for study in found]
    gaps = [{seed: value - other for seed, (value, other) in of_study.items()} for of_study in pairs]
    differences = ["–", "–"]
    if all(study.base != arm for study in found):
        over_all = iqm_difference([list(of_study.values()) for of_study in pairs])
        mean = t_interval([statistics.fmean(one[seed] for one in gaps) for seed in gaps[0]])
        differences = [_bounds(over_all), _bounds(mean)]
    own = ["base" if arm == study.base else _signed(gap) for study, gap in zip(found, gaps, strict=True)]
    return [_bounds(iqm_interval([list(study.values[arm].values()) for study in found]), ".1f"), *differences, *own]


def primary_table(records: Path) -> str:
    """`empg` − base of every main comparison, p corrected over all of them."""
    found = [finished(records, name) for name in PRIMARY]
    gaps = [[value - other for value, other in study.pairs("empg").values()] for study in found]
    raw = [sign_flip_test(one).p_value for one in gaps]
    lines = [["study", "base", "seeds", "`empg` − base", "p", "p (Holm)"], ["---", "---", *["---:"] * 4]]
    for study, one, p, corrected in zip(found, gaps, raw, holm(raw), strict=True):
        base = f"`{study.base}`"
        lines.append([f"`{study.name}`", base, str(len(one)), points(one), p_text(p), p_text(corrected)])
    return markdown(lines)


def pairs_table(records: Path, name: str) -> str:
    """The comparisons that the arms are there for, paired by seed, to two decimals; where the benchmark tells known
    questions (ID) from unknown ones (OOD), of these too. Nothing here is corrected.

    Raises:
        NotComparable: the study is not finished.
    """
    base, archive = finished(records, name).base, records / f"{name}.tar.xz"
    study = study_of(archive)
    found = {title: last_values(archive, study, metric) for title, metric in METRICS.items()}
    if found["score"] == found["success"]:
        found["score"] = {}
    found = {title: values for title, values in found.items() if values}
    lines = [["difference", "seeds", *found], ["---", *["---:"] * (1 + len(found))]]
    pairs = [(arm, base if other == "base" else other) for arm, other in (("empg", "base"), *PAIRS)]
    for arm, other in dict.fromkeys(pairs):  # where a baseline is the base, two are one
        prediction = difference_of(arm, "more", other)
        gaps = [prediction.differences(values) for values in found.values()]
        if len(gaps[0]) > 1:
            lines.append([prediction.name, str(len(gaps[0])), *(points(own, decimals=2) for own in gaps)])
    return markdown(lines)


def last_values(archive: Path, study: Mapping[str, Any], metric: str) -> dict[str, dict[int, float]]:
    """Variant -> seed -> the metric's last value; empty where no run has it."""
    values: dict[str, dict[int, float]] = {}
    for variant, seed, rows in curves(archive, study):
        if known := [row[metric] for row in rows if metric in row]:
            values.setdefault(variant, {})[seed] = known[-1]
    return values


def _signed(gaps: Mapping[int, float]) -> str:
    return f"{100 * statistics.fmean(gaps.values()):+z.1f}".replace("-", "−")


def _bounds(found: Estimate, form: str = "+.1f") -> str:
    """In points; a bootstrap's interval need not have its value in the middle."""
    value, low, high = (f"{round(100 * number, 1) + 0.0:{form}}" for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]".replace("-", "−")
