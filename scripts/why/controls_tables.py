"""What the arms of the controls did beside success: the entropy that they train with, how many actions are refused, how
far their weights spread (`python -m scripts.why.tables controls-weights`); and differences that were not predicted
(`controls-described`)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empg_cli.stats.intervals import t_interval
from scripts.why.main_tables import finished
from scripts.why.predictions import Prediction, Values, one, points
from scripts.why.records import curves, later_half, markdown, study_of
from scripts.why.shapley import UNUSED

WHOLE = "scaling"
DESCRIBED = (
    one("scaling", "more", "center"),
    one("bias-only", "more", "center"),
    Prediction(("scaling", "center"), ("center-first", "bias-only"), "equal"),
    one("center-first", "more", "center"),
    one("scaling-step-statistics", "more", "grpo-step-statistics"),
    one("scaling-step-statistics", "more", "scaling"),
    one("step-statistics-shift-down", "more", "scaling"),
    Prediction(("negative", "positive"), ("center", "scaling"), "equal"),
    one("scaling", "more", "grpo-entropy-0.03"),
    one("bias-only", "more", "grpo-entropy-0.03"),
    one("grpo-entropy-0.03", "more", "center"),
    one("first-token", "more", "center"),
    one("permuted-within", "more", "center"),
    one("trajectory-mean", "more", "center"),
    one("valid-only", "more", "center"),
)
"""The first two were predicted and are here for what else they did. The third is 0 where the two parts of the scaling
add up. All after it were chosen when results had been seen."""
LATE = {
    "entropy": "actor/entropy",
    "training": "episode/success_rate",
    "refused": "episode/refused_frac",
}


def weights_table(records: Path, name: str) -> str:
    """Markdown, a line for each arm, means over seeds. Entropy (nats a token) and refused actions are means over the
    later half of the updates. The spread of the weights is their 90th percentile less their 10th: of the first update,
    when all arms have the same policy, and of the later half.

    Raises:
        NotComparable: the study is not finished.
    """
    _, found = values_from(records, name)
    entropy = found["entropy"]
    head = ["arm", "entropy", f"minus `{WHOLE}`", "actions refused, %", "spread of g, update 1", "later half"]
    lines = [head, ["---", *["---:"] * 5]]
    for variant in entropy:
        gap = "–" if variant == WHOLE else nats(one(variant, "equal", WHOLE).differences(entropy))
        refused = f"{100 * statistics.fmean(found['refused'][variant].values()):.0f}"
        spreads = [_mean(found.get(what, {}).get(variant, {})) for what in ("spread at first", "spread")]
        lines.append([f"`{variant}`", _mean(entropy[variant]), gap, refused, *spreads])
    return markdown(lines)


def described_table(records: Path, name: str) -> str:
    """Markdown, a line for each of `DESCRIBED`, paired by seed: success at the end, of all seeds and of those that did
    not choose the agent; all others are means over the later half of the updates.

    Raises:
        NotComparable: the study is not finished.
    """
    success, found = values_from(records, name)
    fresh = {arm: {seed: value for seed, value in runs.items() if seed >= UNUSED} for arm, runs in success.items()}
    columns = (
        ("success", success, points),
        (f"seeds from {UNUSED} on", fresh, points),
        ("in training", found["training"], points),
        ("entropy, nats", found["entropy"], nats),
        ("actions refused", found["refused"], points),
    )
    lines = [["difference", *(title for title, _, _ in columns)], ["---", *["---:"] * len(columns)]]
    for difference in DESCRIBED:
        lines.append([difference.name, *(unit(difference.differences(values)) for _, values, unit in columns)])
    return markdown(lines)


def values_from(records: Path, name: str) -> tuple[Values, dict[str, dict[str, dict[int, float]]]]:
    """Variant -> seed -> success at the end, and for each that `of_run` has the same."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    success, archive = finished(records, name).values, records / f"{name}.tar.xz"
    for variant, seed, rows in curves(archive, study_of(archive)):
        for what, value in of_run(rows).items():
            found.setdefault(what, {}).setdefault(variant, {})[seed] = value
    return success, found


def of_run(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`LATE` as means over the later half of the updates; of weights their spread then and at the first update."""
    updates = [row for row in rows if "actor/entropy" in row]
    first = later_half(rows)
    late = [row for row in updates if row["update"] >= first]
    found = {what: statistics.fmean(row[key] for row in late) for what, key in LATE.items()}
    if "empg/weight/p90" in updates[0]:
        found["spread at first"] = _spread(updates[0])
        found["spread"] = statistics.fmean(map(_spread, late))
    return found


def _spread(row: Mapping[str, Any]) -> float:
    return float(row["empg/weight/p90"] - row["empg/weight/p10"])


def nats(differences: Sequence[float]) -> str:
    """Mean and half of its 95 % t interval."""
    found = t_interval(differences)
    return f"{found.value:+z.3f} ± {(found.high - found.low) / 2:.3f}".replace("-", "−")


def _mean(values: Mapping[int, float]) -> str:
    return f"{statistics.fmean(values.values()):.2f}" if values else "–"
