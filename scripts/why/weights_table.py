"""What the arms of the controls did beside success: the entropy that they train with, how far their weights spread and
how much credit they move (`python -m scripts.why.tables controls-weights`), and differences that nobody had predicted
(`controls-described`)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empg_cli.stats.intervals import t_interval
from scripts.why.main_tables import finished
from scripts.why.predictions import Prediction, Values, one, points
from scripts.why.records import curves, markdown, study_of

WHOLE = "scaling"
DESCRIBED = (
    Prediction(("scaling", "center"), ("center-first", "bias-only"), "equal"),
    one("center-first", "more", "center"),
    one("scaling-step-statistics", "more", "grpo-step-statistics"),
    one("step-statistics-shift-down", "more", "scaling"),
    one("scaling", "more", "grpo-entropy-0.03"),
    one("first-token", "more", "center"),
    one("permuted-within", "more", "center"),
    one("trajectory-mean", "more", "center"),
    one("valid-only", "more", "center"),
)
"""The first is 0 where the two parts of the scaling add up. All but it were chosen after results had been seen."""
METRICS = {
    "entropy": ("actor/entropy",),
    "training": ("episode/success_rate",),
    "refused": ("episode/refused_frac",),
    "spread": ("empg/weight/p90", "empg/weight/p10"),
    "moved": ("empg/advantage_shift_relative",),
}
"""The first less the second."""


def weights_table(records: Path, name: str, first: int) -> str:
    """Markdown, a line for each arm: means over the updates from `first` on, then over seeds. Entropy is in nats a
    token, the spread of the weights is their 90th percentile less their 10th, credit moved is a part of what there was.

    Raises:
        NotComparable: the study is not finished.
    """
    _, found = values_from(records, name, first)
    entropy = found["entropy"]
    lines = [["arm", "entropy", f"minus `{WHOLE}`", "spread of g", "credit moved"], ["---", *["---:"] * 4]]
    for variant in entropy:
        gap = "–" if variant == WHOLE else nats(one(variant, "equal", WHOLE).differences(entropy))
        others = [_mean(found.get(what, {}).get(variant, {})) for what in ("spread", "moved")]
        lines.append([f"`{variant}`", _mean(entropy[variant]), gap, *others])
    return markdown(lines)


def described_table(records: Path, name: str, first: int) -> str:
    """Markdown, a line for each of `DESCRIBED`, paired by seed; all but success are means over the updates from `first`
    on.

    Raises:
        NotComparable: the study is not finished.
    """
    success, found = values_from(records, name, first)
    lines = [["difference", "success", "in training", "entropy, nats", "actions refused"], ["---", *["---:"] * 4]]
    for difference in DESCRIBED:
        told = [
            unit(difference.differences(values))
            for values, unit in (
                (success, points),
                (found["training"], points),
                (found["entropy"], nats),
                (found["refused"], points),
            )
        ]
        lines.append([difference.name, *told])
    return markdown(lines)


def values_from(records: Path, name: str, first: int) -> tuple[Values, dict[str, dict[str, dict[int, float]]]]:
    """Variant -> seed -> success at the end, and for each of `METRICS` the same of the updates from `first` on."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    success, archive = finished(records, name).values, records / f"{name}.tar.xz"
    for variant, seed, rows in curves(archive, study_of(archive)):
        for what, value in late(rows, first).items():
            found.setdefault(what, {}).setdefault(variant, {})[seed] = value
    return success, found


def late(rows: Sequence[Mapping[str, Any]], first: int) -> dict[str, float]:
    """Of one run, those of `METRICS` that it has."""
    kept = [row for row in rows if row["update"] >= first and "actor/entropy" in row]
    return {
        what: statistics.fmean(row[key] - sum(row[other] for other in less) for row in kept)
        for what, (key, *less) in METRICS.items()
        if all(name in row for row in kept for name in (key, *less))
    }


def nats(differences: Sequence[float]) -> str:
    """Mean and half of its 95 % t interval."""
    found = t_interval(differences)
    return f"{found.value:+.3f} ± {(found.high - found.low) / 2:.3f}".replace("-", "−")


def _mean(values: Mapping[int, float]) -> str:
    return f"{statistics.fmean(values.values()):.2f}" if values else "–"
