"""What scripts/why/predictions.py says of the controls, on numbers made up for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from empg_cli.config.location import conf_dir
from scripts.why import power, predictions, tables
from scripts.why.predictions import PREDICTIONS, one, verdict

PAGE = Path(__file__).parents[3] / "docs" / "studies" / "why-empg.md"


@pytest.mark.parametrize(
    ("relation", "low", "high", "p", "seen"),
    [
        ("more", 0.001, 0.2, None, "yes"),
        ("more", 0.001, 0.2, 0.049, "yes"),
        ("more", 0.001, 0.2, 0.05, "open"),  # the interval alone does not do for a primary one
        ("more", 0.0, 0.2, None, "open"),
        ("more", -0.2, -0.001, None, "no"),
        ("more", -0.059, 0.059, None, "open"),  # as much, which is not told from a little more
        ("more", 0.001, 0.05, None, "yes"),  # small, and yet more
        ("more", 0.001, 0.05, 0.06, "open"),
        ("less", -0.2, -0.001, 0.01, "yes"),
        ("less", -0.2, -0.001, 0.06, "open"),
        ("less", 0.001, 0.2, None, "no"),
        ("less", -0.03, 0.2, None, "open"),
        ("equal", -0.059, 0.059, None, "yes"),
        ("equal", 0.0, 0.059, None, "yes"),
        ("equal", 0.0, 0.06, None, "open"),
        ("equal", 0.001, 0.059, None, "no"),
        ("equal", -0.2, -0.001, None, "no"),
        ("equal", -0.06, 0.01, None, "open"),
    ],
)
def test_verdicts(relation: predictions.Relation, low: float, high: float, p: float | None, seen: str) -> None:
    assert verdict(relation, low, high, p) == seen


def around(mean: float, half: float) -> list[float]:
    """Four values with this mean and this half of a 95 % t interval: of -d, -d, d, d the sd is d * sqrt(4/3), so half
    is 3.182 * d * sqrt(4/3) / 2 = 1.8374 * d."""
    d = half / 1.837388
    return [mean - d, mean - d, mean + d, mean + d]


def test_values_around_a_mean_are_what_they_say() -> None:
    assert predictions.interval(around(0.1, 0.04)) == pytest.approx((0.06, 0.14), abs=1e-6)


FOUND = {
    "scaling": (0.10, 0.02), "bias-only": (0.05, 0.02), "center-first": (-0.05, 0.02), "first-token": (-0.1, 0.02),
    "positive": (-0.05, 0.02),
}  # fmt: skip
"""Arm of each comparison -> mean and half interval, as the mechanism would have it; of `scaling` the gain: 10 points,
so 2.5 are the part that must be able to be lost."""


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({}, "The mechanism is supported: all four primary predictions are seen."),
        ({"positive": (-0.01, 0.02)}, "The mechanism is neither refuted nor supported: 3 of four primary predictions"),
        ({"positive": (0.05, 0.02)}, "The mechanism is neither refuted nor supported: 3 of four primary predictions"),
        ({"first-token": (0.0, 0.026)}, "The mechanism is neither refuted nor supported: 3 of four"),
        ({"first-token": (0.0, 0.024)}, "The mechanism is refuted: `first-token` − `scaling`: at most 2.4 of the gain"),
        ({"center-first": (0.03, 0.02)}, "The mechanism is refuted: `center-first` − `scaling`: at most 0.0 of the"),
        ({"center-first": (0.0, 0.026)}, "The mechanism is neither refuted nor supported: 3 of four"),
        ({"bias-only": (0.0, 0.019)}, "The mechanism is refuted: `bias-only` − `center` ends below 2 points."),
        ({"bias-only": (0.0, 0.021)}, "The mechanism is neither refuted nor supported: 3 of four"),
        ({"scaling": (0.03, 0.031)}, "No gain is seen that there were to explain (`scaling` − `center`): nothing is"),
        ({"scaling": (0.03, 0.029), "first-token": (0.0, 0.008)}, "The mechanism is neither refuted nor supported"),
        ({"scaling": (0.03, 0.029), "first-token": (0.0, 0.007)}, "The mechanism is refuted: `first-token`"),
    ],
)
def test_what_is_decided_of_the_mechanism(changed: dict[str, tuple[float, float]], answer: str) -> None:
    values = FOUND | changed
    found = {prediction: around(*values[prediction.plus[0]]) for prediction in (*predictions.PRIMARY, predictions.GAIN)}
    assert predictions.decided(found, dict.fromkeys(predictions.PRIMARY, 0.01)).startswith(answer)


def test_a_primary_one_whose_p_is_not_small_supports_nothing() -> None:
    found = {one: around(*FOUND[one.plus[0]]) for one in (*predictions.PRIMARY, predictions.GAIN)}
    adjusted = dict.fromkeys(predictions.PRIMARY, 0.01) | {predictions.PRIMARY[0]: 0.05}
    assert predictions.decided(found, adjusted).endswith(
        "neither refuted nor supported: 3 of four primary predictions are seen."
    )


def test_a_difference_of_differences_is_over_the_seeds_that_have_all_four() -> None:
    values = {
        "scaling-step-statistics": {0: 0.7, 1: 0.9},
        "grpo-step-statistics": {0: 0.6, 1: 0.9},
        "scaling": {0: 0.8, 1: 0.9, 2: 0.1},
        "grpo": {0: 0.5, 2: 0.1},
    }
    # seed 0 alone: (.7 - .6) - (.8 - .5) = -.2
    assert predictions.STEP_STATISTICS.differences(values) == pytest.approx([-0.2])
    assert predictions.STEP_STATISTICS.name == (
        "`scaling-step-statistics` − `grpo-step-statistics` − (`scaling` − `grpo`)"
    )
    assert one("center", "equal", "grpo").differences(values) == []


def test_the_table() -> None:
    """Seven pairs that all gain: exact p 2 / 2^7 = 1/64, of four primary ones 4/64 after Holm, and the next 3/64, which
    cannot be less: 4/64. The other two are of ±.05 in turns, whose sum any signs reach: p 1."""
    turns = {seed: 0.60 + 0.05 * (-1) ** seed for seed in range(7)}
    values: dict[str, dict[int, float]] = {
        "bias-only": {seed: 0.60 + 0.01 * seed for seed in range(7)},
        "center": dict.fromkeys(range(7), 0.5),
        "grpo": {seed: 0.50 + 0.01 * (-1) ** seed for seed in range(7)},
        "scaling": dict.fromkeys(range(7), 0.6),
        "first-token": turns,
        "center-first": turns,
        "positive": {seed: 0.40 + 0.01 * seed for seed in range(7)},
    }
    lines = predictions.table(values, 7).splitlines()
    # bias-only - center: mean .13, sd .0216, t 2.447: half 2.447 * .0216 / sqrt 7 = .01998
    assert lines[2] == "| 1. `bias-only` − `center` | more | 7 | +13.0 ± 2.0 | 0.062 | open |"
    # center-first - scaling: four times .05, three times -.05: mean .00714, sd .05345, half .04943
    assert lines[3] == "| 2. `center-first` − `scaling` | less | 7 | +0.7 ± 4.9 | 1.000 | open |"
    assert lines[5] == "| 4. `positive` − `center` | less | 7 | −7.0 ± 2.0 | 0.062 | open |"
    assert lines[6] == "| `scaling` − `center` | more | 7 | +10.0 ± 0.0 |  | yes |"
    assert lines[7] == "| `center` − `grpo` | equal | 7 | −0.1 ± 1.0 |  | yes |"
    # 10 points are gained; the others lose up to 4.9 - .7 = 4.2 of them, which is more than a quarter
    assert lines[-1] == "The mechanism is neither refuted nor supported: 0 of four primary predictions are seen."
    assert len(lines) == 10
    assert predictions.table(values, 7, decides=False).splitlines() == lines[:-2]
    # without seed 6, of .66: mean .125, sd .0187, t 2.571, half 2.571 * .0187 / sqrt 6 = .0196
    *_, last = predictions.table(values, 7, split=[6]).splitlines()
    assert last.startswith(f"{lines[-1]} Without seed 6, played on more than one platform: 1. +12.5 ± 2.0; 2. +0.0")


def test_nothing_is_decided_before_the_last_seed() -> None:
    values = {arm: dict.fromkeys(range(7), 0.5) for arm in ("bias-only", "center", "scaling", "first-token", "grpo")}
    values |= {"center-first": dict.fromkeys(range(7), 0.5), "positive": dict.fromkeys(range(6), 0.5)}
    lines = predictions.table(values, 7).splitlines()
    assert lines[-1] == "Not finished: 6 of 7 seeds. Nothing is decided before."
    assert {line.split(" | ")[-1] for line in lines[2:-2]} == {" |"}
    values["positive"] = dict.fromkeys(range(7), 0.5)
    values["grpo"] = {0: 0.4, 1: 0.6}  # an arm of no primary comparison that is not done
    (line,) = [line for line in predictions.table(values, 7).splitlines() if line.startswith("| `center` − `grpo`")]
    assert line.endswith("| equal | 2 | +0.0 ± 127.1 |  |  |")
    del values["positive"]
    assert predictions.table(values, 7).splitlines()[-1].startswith("Not finished: 0 of 7 seeds.")


SAID: dict[predictions.Relation, str] = {
    "more": "more than `{}`", "less": "less than `{}`", "equal": "as much as `{}`",
}  # fmt: skip


def rows_of_the_page(page: str) -> dict[str, str]:
    """Arm -> its row in the table of what follows from the algebra."""
    rows = page.partition("| arm of `ablation=controls` |")[2].partition("\n\n")[0].splitlines()
    return {arm: row for row in rows for arm in re.findall(r"`([\w.-]+)`", row.split(" | ")[0])}


def test_predictions_are_of_arms_that_there_are_and_as_the_page_tells_them() -> None:
    arms = set(yaml.safe_load((conf_dir() / "ablation" / "controls.yaml").read_text())["variants"])
    named = {arm for prediction in PREDICTIONS for arm in (*prediction.plus, *prediction.minus)}
    assert named <= arms
    assert arms - named == set()
    page = PAGE.read_text()
    for sentence in (
        "1. `bias-only` is more than `center`", "2. `center-first` is less than `scaling`",
        "3. `first-token` is less than `scaling`", "4. `positive` is less than `center`",
    ):  # fmt: skip
        assert sentence in page
    assert [prediction for prediction in PREDICTIONS if prediction.is_primary] == list(PREDICTIONS[:4])
    told = rows_of_the_page(page)
    for prediction in PREDICTIONS:
        if prediction not in (predictions.STEP_STATISTICS, predictions.GAIN):
            said = SAID[prediction.relation].format(*prediction.minus)
            line = told[prediction.plus[0]]
            assert said in line or f"{prediction.plus[0]}` is {said}" in page, (prediction.name, line)
    assert "`scaling` must be more than `center`" in page and predictions.GAIN.relation == "more"
    assert "its gain on `grpo-step-statistics` is less than that of `scaling` on `grpo`" in page
    assert predictions.STEP_STATISTICS.relation == "less"


def test_tables_make_it_from_a_record() -> None:
    archive = tables.RECORDS / "controls.tar.xz"
    if not archive.is_file():
        pytest.skip("no record of controls yet: python -m scripts.why.play controls")
    assert tables.table(tables.RECORDS, "controls-predictions").startswith("| difference | must be |")


def test_the_rules_seldom_refute_what_is_true_and_say_nothing_where_nothing_is_gained() -> None:
    """Wide spreads of a binomial of 60 around what the page tells of 400."""
    assert power.means_of(10, is_true=True)["center-first"] == 6
    nothing, true, false = (
        power.decisions(gain, 6.7, is_true, 60) for gain, is_true in ((0.0, True), (10.4, True), (10.4, False))
    )
    assert nothing["no gain seen"] >= 55 and sum(nothing.values()) == 60
    assert true["refuted"] <= 2 and true["supported"] >= 12
    assert false["refuted"] >= 30 and false["supported"] == 0
