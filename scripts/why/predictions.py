"""What docs/studies/why-empg.md says of `ablation=controls` beforehand, and whether it was seen: the table
`python -m scripts.why.tables controls-predictions`, first written before any control was played, and amended before any
result of one was looked at (the page says how).

A prediction is a difference of means of success, paired by seed, and what it must be: `more` or `less` than 0, or
`equal`: its 95 % t interval holds 0 and lies within 6 points of it. Of the four primary ones the exact sign-flip test,
corrected together (Holm), must say it too. Nothing is said before all primary ones have all the seeds of the plan, and
nothing of the mechanism where there is no gain that it could explain.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from empg_cli.stats.intervals import t_interval
from empg_cli.stats.paired import holm, sign_flip_test
from scripts.why.records import markdown

MARGIN = 0.06
"""Success; as much as."""
LEAST_GAIN = 0.02
"""What `bias-only` must be able to gain on `center`, or the mechanism is refuted."""
LEAST_PART = 0.25
"""The part of the gain that `first-token` and `center-first` must be able to lack, or the mechanism is refuted."""
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


GAIN = one("scaling", "more", "center")
"""What there is to explain."""
STEP_STATISTICS = Prediction(("scaling-step-statistics", "grpo"), ("grpo-step-statistics", "scaling"), "less")
PREDICTIONS = (
    one("bias-only", "more", "center", primary=True),
    one("center-first", "less", "scaling", primary=True),
    one("first-token", "less", "scaling", primary=True),
    one("positive", "less", "center", primary=True),
    GAIN,
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
PRIMARY = tuple(prediction for prediction in PREDICTIONS if prediction.is_primary)


def table(values: Values, seeds: int, *, split: Sequence[int] = (), decides: bool = True) -> str:
    """Every prediction with its difference in points, and after it what is decided of the mechanism.

    Args:
        seeds: of the plan.
        decides: not of success in training, which only tells whether it is the evaluation alone that gains.
        split: those whose arms were played on more than one platform: the primary ones are told without them too.
    """
    found = measured(values)
    adjusted = adjusted_p(found)
    done = min(len(found[prediction]) for prediction in PRIMARY)
    is_finished = done >= seeds
    lines = [["difference", "must be", "seeds", "points", "p (Holm)", "seen"], ["---", "---", *["---:"] * 3, "---"]]
    for prediction, own in found.items():
        if len(own) < 2:
            continue
        p = adjusted.get(prediction)
        seen = verdict(prediction.relation, *interval(own), p) if is_finished and len(own) == seeds else ""
        number = f"{PRIMARY.index(prediction) + 1}. " if prediction.is_primary else ""
        told = "" if p is None else p_text(p)
        lines.append([f"{number}{prediction.name}", prediction.relation, str(len(own)), points(own), told, seen])
    text = markdown(lines)
    if not is_finished:
        return f"{text}\n\nNot finished: {done} of {seeds} seeds. Nothing is decided before."
    if decides:
        text += f"\n\n{decided(found, adjusted)}"
    if not split:
        return text
    text += " " if decides else "\n\n"
    whole = measured({arm: {seed: runs[seed] for seed in runs if seed not in split} for arm, runs in values.items()})
    told = "; ".join(f"{number}. {points(whole[prediction])}" for number, prediction in enumerate(PRIMARY, 1))
    which = f"seed{'s' if len(split) > 1 else ''} {', '.join(map(str, split))}"
    return f"{text}Without {which}, played on more than one platform: {told}."


def measured(values: Values) -> dict[Prediction, list[float]]:
    return {prediction: prediction.differences(values) for prediction in PREDICTIONS}


def adjusted_p(found: Mapping[Prediction, Sequence[float]]) -> dict[Prediction, float]:
    """Of the primary ones, after Holm."""
    return dict(zip(PRIMARY, holm([p_value(found[prediction]) for prediction in PRIMARY]), strict=True))


def p_value(differences: Sequence[float]) -> float:
    """1 where nothing is known."""
    return sign_flip_test(differences).p_value if differences else 1.0


def interval(differences: Sequence[float]) -> tuple[float, float]:
    found = t_interval(differences)
    return found.low, found.high


def points(differences: Sequence[float], decimals: int = 1) -> str:
    """Mean in points, and half of its 95 % t interval."""
    low, high = interval(differences)
    mean, half = 100 * statistics.fmean(differences), 50 * (high - low)
    return f"{mean:+z.{decimals}f} ± {half:.{decimals}f}".replace("-", "−")


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict(relation: Relation, low: float, high: float, p: float | None = None) -> str:
    """`yes`, `no`, or `open`.

    Args:
        p: of a primary comparison, corrected; without it the interval decides alone.
    """
    if relation == "equal":
        return "yes" if is_as_much(low, high) else "open" if low <= 0 <= high else "no"
    if relation == "less":
        low, high = -high, -low
    if low > 0:
        return "yes" if p is None or p < LEVEL else "open"
    return "no" if high < 0 else "open"


def is_as_much(low: float, high: float) -> bool:
    return -MARGIN < low <= 0 <= high < MARGIN


def decided(found: Mapping[Prediction, Sequence[float]], adjusted: Mapping[Prediction, float]) -> str:
    """What follows for the mechanism from all seeds."""
    low, _ = interval(found[GAIN])
    if low <= 0:
        return f"No gain is seen that there were to explain ({GAIN.name}): nothing is decided of the mechanism."
    gain = statistics.fmean(found[GAIN])
    reasons = []
    for prediction in PRIMARY:
        low, high = interval(found[prediction])
        if prediction.plus[0] in ("first-token", "center-first") and -low < LEAST_PART * gain:
            most = 100 * max(-low, 0.0)
            reasons.append(f"{prediction.name}: at most {most:.1f} of the gain's {100 * gain:.1f} points are lost")
        if prediction.plus[0] == "bias-only" and high < LEAST_GAIN:
            reasons.append(f"{prediction.name} ends below {100 * LEAST_GAIN:g} points")
    if reasons:
        return f"The mechanism is refuted: {'; '.join(reasons)}."
    seen = [verdict(one.relation, *interval(found[one]), adjusted[one]) for one in PRIMARY].count("yes")
    if seen == len(PRIMARY):
        return "The mechanism is supported: all four primary predictions are seen."
    return f"The mechanism is neither refuted nor supported: {seen} of four primary predictions are seen."
