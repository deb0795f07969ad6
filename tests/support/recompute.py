"""The tables of a study once more, from its runs' metrics.jsonl alone: plain Python and scipy, nothing of empg's."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Expected:
    variant: str
    values: dict[int, float]
    """By seed."""
    mean: float
    half: float
    difference: float | None = None
    difference_half: float | None = None
    p: float | None = None
    p_holm: float | None = None


def last_values(study: Path, variant: str, metric: str) -> dict[int, float]:
    found = {}
    for folder in study.glob(f"{variant}-s*"):
        seed = re.fullmatch(re.escape(variant) + r"-s(\d+)", folder.name)
        if seed:
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            found[int(seed[1])] = [row[metric] for row in rows if row.get(metric) is not None][-1]
    return dict(sorted(found.items()))


def spread(half: float, n: int, scale: int, places: str) -> str:
    """As a table shows half an interval."""
    if half * scale < 1e-9:
        return f" (equal in all {n})"
    text = f"{half * scale:{places}}"
    return f" ± {text if float(text) else f'{half * scale:.1g}'}"


def recompute(study: Path, variants: list[str], base: str, metric: str) -> dict[str, Expected]:
    stats = pytest.importorskip("scipy.stats", reason="needs the extra report")
    rows = {}
    for variant in variants:
        values = last_values(study, variant, metric)
        numbers = list(values.values())
        half = stats.t.ppf(0.975, len(numbers) - 1) * statistics.stdev(numbers) / math.sqrt(len(numbers))
        rows[variant] = Expected(variant, values, statistics.fmean(numbers), half)
    for row in rows.values():
        if row.variant == base:
            continue
        differences = [row.values[seed] - rows[base].values[seed] for seed in row.values]
        row.difference = statistics.fmean(differences)
        n = len(differences)
        row.difference_half = stats.t.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n)
        signs = itertools.product((1, -1), repeat=n)
        observed = abs(sum(differences))
        row.p = statistics.fmean(
            abs(sum(s * d for s, d in zip(sign, differences, strict=True))) >= observed - 1e-12 for sign in signs
        )
    tested = sorted((row for row in rows.values() if row.p is not None), key=lambda row: row.p or 0.0)
    worst = 0.0
    for rank, row in enumerate(tested):
        worst = max(worst, min(1.0, (len(tested) - rank) * (row.p or 0.0)))
        row.p_holm = worst
    return rows


def check_all_five_formats(study: Path, variants: list[str], base: str, metric: str) -> dict[str, Expected]:
    """ablation.json, ablation.csv, runs.csv, ablation.md and ablation.tex against `recompute`."""
    expected = recompute(study, variants, base, metric)
    in_json = {row["variant"]: row for row in json.loads((study / "ablation.json").read_text())["rows"]}
    in_csv = {row["variant"]: row for row in csv.DictReader((study / "ablation.csv").open())}
    assert list(in_json) == list(in_csv) == variants
    for row in expected.values():
        _check_numbers(row, in_json[row.variant], in_csv[row.variant])
    runs = [
        (row["variant"], int(row["seed"]), float(row["value"])) for row in csv.DictReader((study / "runs.csv").open())
    ]
    assert runs == [(row.variant, seed, value) for row in expected.values() for seed, value in row.values.items()]
    if metric == "eval/success_rate":
        _check_wilson(study)
    scale = 100 if metric == "eval/success_rate" else 1
    places = ".1f" if scale == 100 else ".4g"
    markdown = _markdown_rows(study / "ablation.md")
    latex = _latex_rows(study / "ablation.tex")
    for row in expected.values():
        n = len(row.values)
        shown = [row.variant, str(n), f"{row.mean * scale:{places}}{spread(row.half, n, scale, places)}"]
        if row.difference is None or row.difference_half is None:
            shown += ["–"] * 4
        else:
            half = spread(row.difference_half, n, scale, places)
            shown.append(f"{row.difference * scale:+{places}}{half}")
            shown += [str(len(row.values)), f"{row.p:.4f}", f"{row.p_holm:.4f}"]
        assert markdown[row.variant] == shown
        assert latex[row.variant] == shown
    return expected


def _check_numbers(row: Expected, in_json: dict[str, Any], in_csv: dict[str, str]) -> None:
    close = {"rel": 1e-9, "abs": 1e-12}
    assert in_json["mean"] == pytest.approx(row.mean, **close) == pytest.approx(float(in_csv["mean"]), **close)
    if row.half < 1e-11:
        assert in_csv["high"] == "" and in_json["interval"] is None
    else:
        assert float(in_csv["high"]) - float(in_csv["mean"]) == pytest.approx(row.half, **close)
        assert in_json["interval"]["low"] == pytest.approx(row.mean - row.half, **close)
    if row.difference is None or row.difference_half is None:
        assert in_json["difference"] is None and in_csv["difference"] == "" and in_csv["p"] == ""
        return
    found = in_json["difference"]
    assert found["mean"] == pytest.approx(row.difference, **close)
    assert float(in_csv["difference"]) == pytest.approx(row.difference, **close)
    if row.difference_half < 1e-11:
        assert found["high"] is None and in_csv["difference_low"] == ""
    else:
        assert found["high"] - found["mean"] == pytest.approx(row.difference_half, **close)
        assert float(in_csv["difference_low"]) == pytest.approx(row.difference - row.difference_half, **close)
    assert found["test"]["p_value"] == float(in_csv["p"]) == pytest.approx(row.p)
    assert in_json["p_holm"] == float(in_csv["p_holm"]) == pytest.approx(row.p_holm)
    is_sure = bool(abs(row.difference) > row.difference_half) and row.p_holm is not None and row.p_holm < 0.05
    assert in_json["bold"] is is_sure and in_csv["bold"] == str(is_sure)


def _check_wilson(study: Path) -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs the extra report")
    for row in csv.DictReader((study / "runs.csv").open()):
        n = int(row["tasks"])
        interval = stats.binomtest(round(float(row["value"]) * n), n).proportion_ci(method="wilson")
        assert (float(row["wilson_low"]), float(row["wilson_high"])) == pytest.approx(interval, abs=1e-9)


def _markdown_rows(path: Path) -> dict[str, list[str]]:
    """The first table, without its marks for bold."""
    table = path.read_text().split("\n\n")[1]
    lines = [line.replace("**", "").replace(r"\|", "|").strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {cells[0]: cells for cells in lines}


def _latex_rows(path: Path) -> dict[str, list[str]]:
    body = path.read_text().partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    rows = {}
    for line in body.strip().splitlines():
        text = re.sub(r"\\textbf\{(.*?)\}", r"\1", line.removesuffix(r" \\"))
        cells = [cell.replace(r"$\pm$", "±").replace("--", "–").replace(r"\_", "_") for cell in text.split(" & ")]
        rows[cells[0]] = cells
    return rows
