"""What the arms of the controls did beside success: the entropy that they train with, how far their weights spread, how
much credit they move, and whether two parts of the scaling add up: `python -m scripts.why.tables controls-weights`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empg_cli.stats.intervals import t_interval
from scripts.why.main_tables import finished
from scripts.why.predictions import Prediction, points
from scripts.why.records import curves, markdown, study_of

WHOLE = "scaling"
INTERACTION = Prediction(("scaling", "center"), ("center-first", "bias-only"), "equal")
"""(scaling − center) − (center-first − center) − (bias-only − center): 0 where the two parts add up. Nothing was
predicted of it."""


def weights_table(records: Path, name: str, first: int) -> str:
    """Markdown, a line for each arm: means over the updates from `first` on, then over seeds. Entropy is in nats a
    token, the spread of the weights is their 90th percentile less their 10th, credit moved is a part of what there was.

    Raises:
        NotComparable: the study is not finished.
    """
    values, archive = finished(records, name).values, records / f"{name}.tar.xz"
    found: dict[str, dict[str, dict[int, float]]] = {}
    for variant, seed, rows in curves(archive, study_of(archive)):
        for what, value in late(rows, first).items():
            found.setdefault(what, {}).setdefault(variant, {})[seed] = value
    entropy = found["entropy"]
    lines = [["arm", "entropy", f"minus `{WHOLE}`", "spread of g", "credit moved"], ["---", *["---:"] * 4]]
    for variant in entropy:
        gap = "–" if variant == WHOLE else nats(Prediction((variant,), (WHOLE,), "equal").differences(entropy))
        others = [_mean(found.get(what, {}).get(variant, {})) for what in ("spread", "moved")]
        lines.append([f"`{variant}`", _mean(entropy[variant]), gap, *others])
    told = ", ".join(
        f"{unit(INTERACTION.differences(of))} {what}"
        for what, of, unit in (
            ("points of success", values, points),
            ("points in training", found["training"], points),
            ("nats of entropy", entropy, nats),
        )
    )
    return f"{markdown(lines)}\n\n{INTERACTION.name}: {told}."


def late(rows: Sequence[Mapping[str, Any]], first: int) -> dict[str, float]:
    """Of one run, what of it is there: entropy, success in training, spread of the weights, credit moved."""
    kept = [row for row in rows if row["update"] >= first and "actor/entropy" in row]
    keys = {
        "entropy": ("actor/entropy",),
        "training": ("episode/success_rate",),
        "spread": ("empg/weight/p90", "empg/weight/p10"),
        "moved": ("empg/advantage_shift_relative",),
    }
    return {
        what: statistics.fmean(row[key] - sum(row[other] for other in less) for row in kept)
        for what, (key, *less) in keys.items()
        if all(name in row for row in kept for name in (key, *less))
    }


def nats(differences: Sequence[float]) -> str:
    """Mean and half of its 95 % t interval."""
    found = t_interval(differences)
    return f"{found.value:+.3f} ± {(found.high - found.low) / 2:.3f}".replace("-", "−")


def _mean(values: Mapping[int, float]) -> str:
    return f"{statistics.fmean(values.values()):.2f}" if values else "–"
