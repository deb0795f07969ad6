"""What arms of the controls did beside success (scripts/why/controls_tables.py), on a record made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.why import controls_tables, tables
from scripts.why.recompute import NotComparable
from tests.unit.why.test_why_page import pack

ARMS: dict[str, tuple[tuple[float, float], float, tuple[float, float] | None]] = {
    "grpo": ((0.5, 0.5), 0.2, None),
    "scaling": ((0.6, 0.8), 0.4, (0.9, 1.2)),
    "center": ((0.5, 0.5), 0.3, (1.0, 1.0)),
    "center-first": ((0.5, 0.6), 0.3, (0.8, 1.1)),
    "bias-only": ((0.5, 0.7), 0.35, (0.7, 1.2)),
}
"""Success at seeds 0 and 1, entropy at seed 0 (0.1 more at seed 1), and p10 and p90 of g."""


def row(update: int, entropy: float, weights: tuple[float, float] | None) -> dict[str, Any]:
    found = {"update": update, "actor/entropy": entropy, "episode/success_rate": entropy, "episode/refused_frac": 0.5}
    if weights:
        found["empg/weight/p10"], found["empg/weight/p90"] = weights
    return found


def record(path: Path, absent: str = "") -> None:
    cells = [{"variant": name, "seed": seed} for name in ARMS for seed in (0, 1)]
    files = {"study.json": json.dumps({"base": "scaling", "cells": cells}), "runs.csv": "variant,seed,value\n"}
    for name, (success, entropy, weights) in ARMS.items():
        for seed in (0, 1):
            if (folder := f"{name}-s{seed}") == absent:
                continue
            files["runs.csv"] += f"{name},{seed},{success[seed]}\n"
            own = entropy + 0.1 * seed
            early = row(2, 9.0, weights and (0.5, 0.5 + weights[1] / 2))
            late = [row(update, value, weights) for update, value in ((3, own - 0.05), (4, own + 0.05))]
            rows = [early, *late, {"update": 4, "eval/success_rate": success[seed]}]
            files[f"{folder}/metrics.jsonl"] = "\n".join(map(json.dumps, rows)) + "\n"
            files[f"{folder}/run.json"] = json.dumps({"code": "a", "platform": "cpu"})
    pack(path, files)


def test_a_line_is_of_the_later_half_and_a_gap_is_paired(tmp_path: Path) -> None:
    """Entropy of scaling is .4 and .5, so .45; each arm's is below by the same at both seeds, so the interval is 0
    wide. p90 - p10 of scaling is .3, and in the first row 1.2 / 2 = .6. That row (update 2 of 4, 9.0 nats) counts for
    nothing else, and the row of the evaluation for nothing."""
    record(tmp_path / "controls.tar.xz")
    assert tables.table(tmp_path, "controls-weights").splitlines()[2:] == [
        "| `grpo` | 0.25 | −0.200 ± 0.000 | 50 | – | – |",
        "| `scaling` | 0.45 | – | 50 | 0.60 | 0.30 |",
        "| `center` | 0.35 | −0.100 ± 0.000 | 50 | 0.50 | 0.00 |",
        "| `center-first` | 0.35 | −0.100 ± 0.000 | 50 | 0.55 | 0.30 |",
        "| `bias-only` | 0.40 | −0.050 ± 0.000 | 50 | 0.60 | 0.50 |",
    ]


def test_differences_are_paired_and_those_of_the_later_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Success .6 + .5 - .5 - .5 = .1 and .8 + .5 - .6 - .7 = 0; t of one degree of freedom: 12.706 × .1 / 2 = .635."""
    monkeypatch.setattr(controls_tables, "UNUSED", 0)
    monkeypatch.setattr(controls_tables, "DESCRIBED", controls_tables.DESCRIBED[2:4])
    record(tmp_path / "controls.tar.xz")
    assert tables.table(tmp_path, "controls-described").splitlines()[2:] == [
        "| `scaling` − `center-first` − (`bias-only` − `center`) "
        "| +5.0 ± 63.5 | +5.0 ± 63.5 | +5.0 ± 0.0 | +0.050 ± 0.000 | +0.0 ± 0.0 |",
        "| `center-first` − `center` | +5.0 ± 63.5 | +5.0 ± 63.5 | +0.0 ± 0.0 | +0.000 ± 0.000 | +0.0 ± 0.0 |",
    ]


def test_nothing_is_said_of_an_unfinished_study(tmp_path: Path) -> None:
    record(tmp_path / "controls.tar.xz", absent="bias-only-s1")
    for name in ("controls-weights", "controls-described"):
        with pytest.raises(NotComparable, match="1 of 10 cells are not done"):
            tables.table(tmp_path, name)
