"""What docs/studies/why-empg.md says of `ablation=controls` beforehand, and whether it was seen: the table
`python -m scripts.why.tables controls-predictions`, first written before any control was played, and amended before any
result of one was looked at (the page says how).

A prediction is a difference of means of success, paired by seed, and what it must be: `more` or `less` than 0, or
`equal`: its 95 % t interval holds 0 and lies within 6 points of it. Of the four primary ones the exact sign-flip test,
corrected together (Holm), must say it too. Nothing is said before all primary ones have all the seeds of the plan.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from empg_cli.stats.intervals import t_interval
from empg_cli.stats.paired import holm, sign_flip_test

MARGIN = 0.06
"""Success; as much as."""
LEAST_GAIN = 0.02
"""What `bias-only` must be able to gain on `center`, or the mechanism is refuted."""
LEVEL = 0.05
Relation = Literal["more", "less", "equal"]
Values = Mapping[str, Mapping[int, float]]
"""Variant -> seed -> success rate."""


@dataclass(frozen=True, slots=True)
class Prediction:
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    relation: Relation
    is_primary: bool = False

    @property
    def name(self) -> str:
        """As it is read: a − b − (c − d)."""
        first, *others = self._pairs()
        return " − ".join([f"`{first[0]}` − `{first[1]}`", *(f"(`{two}` − `{one}`)" for one, two in others)])

    def _pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.plus, self.minus, strict=True))

    def differences(self, values: Values) -> list[float]:
        """One for each seed that has all of the arms."""
        arms = [*self.plus, *self.minus]
        seeds = set.intersection(*(set(values.get(arm, {})) for arm in arms))
        signs = [1.0] * len(self.plus) + [-1.0] * len(self.minus)
        return [
            math.fsum(sign * values[arm][seed] for sign, arm in zip(signs, arms, strict=True)) for seed in sorted(seeds)
        ]


def one(arm: str, relation: Relation, other: str, *, primary: bool = False) -> Prediction:
    return Prediction((arm,), (other,), relation, primary)


STEP_STATISTICS = Prediction(("scaling-step-statistics", "grpo"), ("grpo-step-statistics", "scaling"), "less")
PREDICTIONS = (
    one("bias-only", "more", "center", primary=True),
    one("center-first", "less", "scaling", primary=True),
    one("first-token", "less", "scaling", primary=True),
    one("positive", "less", "center", primary=True),
    one("first-token-bias-only", "equal", "center"),
    one("inverted-bias-only", "less", "center"),
    one("shift-up", "less", "scaling"),
    STEP_STATISTICS,
    one("step-statistics-shift-down", "more", "scaling-step-statistics"),
    one("negative", "more", "center"),
    one("center", "equal", "grpo"),
    one("permuted", "equal", "center"),
    one("permuted-within", "less", "scaling"),
    one("trajectory-mean", "less", "scaling"),
    one("valid-only", "less", "scaling"),
    one("inverted", "less", "center"),
    one("bonus", "equal", "center"),
    one("bonus-uncentred", "equal", "grpo"),
    one("scaling-uncentred", "equal", "scaling"),
    one("empg-uncentred", "equal", "empg"),
    one("grpo-entropy-0.03", "more", "grpo"),
)
"""In the order of the page."""


def table(values: Values, seeds: int) -> str:
    """Every prediction with its difference in points, and after it whether the mechanism is refuted.

    Args:
        seeds: of the plan.
    """
    found = {prediction: prediction.differences(values) for prediction in PREDICTIONS}
    primary = [prediction for prediction in PREDICTIONS if prediction.is_primary]
    done = min(len(found[prediction]) for prediction in primary)
    adjusted = dict(zip(primary, holm([p_value(found[prediction]) for prediction in primary]), strict=True))
    lines = [["difference", "must be", "seeds", "points", "p (Holm)", "seen"], ["---", "---", *["---:"] * 3, "---"]]
    for prediction, differences in found.items():
        if len(differences) < 2:
            continue
        low, high = interval(differences)
        p = adjusted.get(prediction)
        lines.append(
            [
                f"{primary.index(prediction) + 1}. {prediction.name}" if prediction.is_primary else prediction.name,
                prediction.relation,
                str(len(differences)),
                f"{100 * statistics.fmean(differences):+.1f} ± {50 * (high - low):.1f}".replace("-", "−"),
                "" if p is None else f"{p:.3f}",
                verdict(prediction.relation, low, high, p) if done == len(differences) == seeds else "",
            ]
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if done < seeds:
        return f"{text}\n\nNot finished: {done} of {seeds} seeds. Nothing is decided before."
    return f"{text}\n\n{refutation({prediction.name: interval(found[prediction]) for prediction in primary})}"


def p_value(differences: Sequence[float]) -> float:
    """1 where nothing is known."""
    return sign_flip_test(differences).p_value if differences else 1.0


def interval(differences: Sequence[float]) -> tuple[float, float]:
    found = t_interval(differences)
    return found.low, found.high


def verdict(relation: Relation, low: float, high: float, p: float | None = None) -> str:
    """`yes`, `no`, or `open`.

    Args:
        p: of a primary comparison, corrected; without it the interval decides alone.
    """
    holds_0 = low <= 0 <= high
    if relation == "equal":
        return "yes" if is_as_much(low, high) else "open" if holds_0 else "no"
    if relation == "less":
        low, high = -high, -low
    if low > 0:
        return "yes" if p is None or p < LEVEL else "open"
    return "no" if high < 0 or is_as_much(low, high) else "open"


def is_as_much(low: float, high: float) -> bool:
    return -MARGIN < low <= 0 <= high < MARGIN


def refutation(primary: Mapping[str, tuple[float, float]]) -> str:
    """Which of the conditions that refute the mechanism hold.

    Args:
        primary: name -> the 95 % interval.
    """
    reasons = [
        f"{name} holds 0 and lies within {100 * MARGIN:g} points of it"
        for name in ("`first-token` − `scaling`", "`center-first` − `scaling`")
        if is_as_much(*primary[name])
    ]
    if primary[name := "`bias-only` − `center`"][1] < LEAST_GAIN:
        reasons.append(f"{name} ends below {100 * LEAST_GAIN:g} points")
    return f"The mechanism is refuted: {'; '.join(reasons)}." if reasons else "Nothing here refutes the mechanism."
