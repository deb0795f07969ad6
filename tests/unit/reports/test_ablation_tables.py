"""The tables of a study against numbers recomputed from the runs' own metrics.jsonl."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import statistics
from pathlib import Path

import pytest

from empg_cli.reports.ablation_tables import json_text, main_table, runs_table, variants_csv, write_tables
from empg_cli.reports.tables import latex, markdown, p_text, print_table
from empg_cli.runs.study import Cell, Study, read_study, write_study
from empg_cli.stats.paired import PairedDifference, SignFlip
from empg_cli.studies.comparison import Comparison, VariantRow, compare

VALUES = {
    "grpo": [0.50, 0.55, 0.45, 0.60],
    "better": [0.60, 0.65, 0.56, 0.69],
    "noisy_1": [0.40, 0.75, 0.50, 0.55],
}
T_975_3 = 3.182446305284263  # 97.5 % quantile of Student's t, 3 degrees of freedom
TASKS = 100


def make(folder: Path, values: dict[str, list[float]] = VALUES) -> Study:
    seeds = tuple(range(len(values["grpo"])))
    cells = tuple(
        Cell(name, seed, (f"algo={name}",), f"{name}-hash", f"{name}-{seed}") for seed in seeds for name in values
    )
    facts = {name: {"benchmark": "alfworld", "loss weighting": "token", "updates": 8} for name in values}
    study = Study(folder, "demo", "eval/success_rate", "grpo", seeds, cells, facts, dict.fromkeys(values, "c"))
    write_study(study)
    for cell in cells:
        finish(study, cell, values[cell.variant][cell.seed])
    return study


def finish(study: Study, cell: Cell, value: float) -> None:
    run = study.cell_dir(cell)
    run.mkdir(parents=True)
    rows = [
        {"update": 0, "eval/success_rate": 0.99, "eval/n": TASKS},  # better than the end: must not be taken
        {"update": 7, "actor/kl_loss": 0.1},
        {"update": 8, "eval/success_rate": value, "eval/n": TASKS},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    (run / "run.json").write_text(json.dumps({"data": {"source": "generated"}}))


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    found = compare(make(tmp_path / "study"))
    assert found is not None
    return found


def last_values(folder: Path, variant: str) -> list[float]:
    """Straight from the files, by a route of its own."""
    found = []
    for seed in range(4):
        lines = (folder / f"{variant}-s{seed}" / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(line)["eval/success_rate"] for line in lines if "success" in line][-1])
    return found


def sign_flip(differences: list[float]) -> float:
    observed = abs(sum(differences)) - 1e-12
    signs = list(itertools.product((1, -1), repeat=len(differences)))
    return sum(abs(sum(s * d for s, d in zip(sign, differences, strict=True))) >= observed for sign in signs) / len(
        signs
    )


def test_means_intervals_and_differences_are_those_of_the_files(tmp_path: Path, comparison: Comparison) -> None:
    base = last_values(tmp_path / "study", "grpo")
    for row in comparison.rows:
        values = last_values(tmp_path / "study", row.variant)
        half = T_975_3 * statistics.stdev(values) / math.sqrt(4)
        assert row.interval is not None
        assert row.mean == pytest.approx(statistics.mean(values))
        assert (row.interval.low, row.interval.high) == pytest.approx((row.mean - half, row.mean + half))
        if row.variant == "grpo":
            assert row.difference is None
            continue
        differences = [mine - theirs for mine, theirs in zip(values, base, strict=True)]
        half = T_975_3 * statistics.stdev(differences) / math.sqrt(4)
        assert row.difference is not None
        assert row.difference.mean == pytest.approx(statistics.mean(differences))
        assert row.difference.high - row.difference.mean == pytest.approx(half)
        assert row.difference.test.p_value == pytest.approx(sign_flip(differences))
        assert row.difference.test.floor == 0.125  # 2 of 2^4 cases


def test_holm_over_the_comparisons(comparison: Comparison) -> None:
    # better: +0.10, +0.10, +0.11, +0.09, all of one sign: p = 2/16. noisy: -0.10, +0.20, +0.05, -0.05, |sum| = 0.10;
    # Holm: the smallest p times 2, the other at least as large.
    rows = {row.variant: row for row in comparison.rows}
    assert rows["better"].p_holm == pytest.approx(0.25)
    noisy = rows["noisy_1"]
    assert noisy.difference is not None
    assert noisy.p_holm == pytest.approx(max(0.25, noisy.difference.test.p_value))


def test_an_interval_that_leaves_out_zero_is_not_enough_for_bold(comparison: Comparison) -> None:
    better = comparison.rows[1]
    assert better.difference is not None and better.difference.low is not None and better.difference.low > 0
    assert better.p_holm == 0.25 and not better.is_sure
    shown = markdown(main_table(comparison))
    assert "| +10.0 ± 1.3 |" in shown and "**" not in shown  # sd 0.00816, times 3.182 / 2 = 0.01299
    # two comparisons: 2 * 2^(1-n) < 0.05 from n = 7 on (0.03125); n = 6 gives 0.0625
    told = "Nothing can be bold: with so few pairs p (Holm) cannot go below 0.25; it can be below 0.05 from 7 pairs on."
    assert told in shown


BASE = [0.50, 0.55, 0.45, 0.60, 0.52, 0.48, 0.51]
GAINS = [0.10, 0.10, 0.11, 0.09, 0.10, 0.12, 0.08]


@pytest.mark.parametrize(
    ("gains", "bold"),
    [
        (GAINS, True),  # all of one sign: p = 2/128 = 0.0156, times 2 = 0.03125
        (GAINS[:6], False),  # p = 2/64 = 0.03125, times 2 = 0.0625
        ([-gain for gain in GAINS], True),
        ([0.1] * 7, True),  # no interval, and p carries it
        ([0.001] * 6 + [0.4], False),  # p is 0.03125, and the interval holds 0: mean 0.058, sd 0.151, t = 2.447
    ],
)
def test_bold_needs_p_below_five_percent_after_holm_and_the_interval(
    gains: list[float], bold: bool, tmp_path: Path
) -> None:
    base = BASE[: len(gains)]
    better = [value + gain for value, gain in zip(base, gains, strict=True)]
    same = [value + 0.01 * (-1) ** place for place, value in enumerate(base)]
    compared = compare(make(tmp_path / "study", {"grpo": base, "better": better, "same": same}))
    assert compared is not None
    assert [row.is_sure for row in compared.rows] == [False, bold, False]
    shown = markdown(main_table(compared))
    assert shown.count("**") == (2 if bold else 0)
    assert latex(main_table(compared)).count(r"\textbf") == int(bold)
    assert ("Nothing can be bold" in shown) == (len(gains) < 7)


def test_the_smallest_p_is_that_of_the_differences_that_can_be_turned(tmp_path: Path) -> None:
    """Two of seven are 0 and have no sign: 2 of 2^5 cases, and nothing can be bold. Of 21 pairs 100,000 draws."""
    base = [place / 100 for place in range(21)]
    better = [value + 0.1 for value in base]
    few = {"grpo": base[:7], "better": [*better[:5], *base[5:7]]}
    compared = compare(make(tmp_path / "few", few))
    assert compared is not None
    shown = markdown(main_table(compared))
    assert "cannot go below 0.0625 with 7 pairs (exact);" in shown and "Nothing can be bold" in shown
    compared = compare(make(tmp_path / "many", {"grpo": base, "better": better}))
    assert compared is not None
    assert "cannot go below 1e-05 with 21 pairs (100,000 draws);" in markdown(main_table(compared))


def test_two_equal_differences_have_no_interval_and_are_not_bold(tmp_path: Path) -> None:
    """0.6 - 0.5 and 0.7 - 0.6 differ by a rounding: no spread all the same."""
    compared = compare(make(tmp_path / "study", {"grpo": [0.5, 0.6], "better": [0.6, 0.7], "flat": [0.5, 0.5]}))
    assert compared is not None
    grpo, better, flat = compared.rows
    assert better.difference is not None and (better.difference.low, better.difference.high) == (None, None)
    assert not better.is_sure
    assert flat.interval is None and grpo.interval is not None
    text = markdown(main_table(compared))
    assert "| better | 2 | 65.0 ± 63.5 | +10.0 (equal in all 2) | 2 | 0.5000 |" in text
    assert "| flat | 2 | 50.0 (equal in all 2) |" in text
    assert "TWO VALUES" in text and "t = 12.7" in text and "equal in all 2: 2 equal values carry no spread" in text
    assert "±" not in latex(main_table(compared)).split(r"\toprule")[1]  # $\pm$ there
    row = {row["variant"]: row for row in csv.DictReader(io.StringIO(variants_csv(compared)))}["better"]
    assert (row["difference_low"], row["difference_high"], row["bold"]) == ("", "", "False")
    assert {one["variant"]: one for one in json.loads(json_text(compared))["rows"]}["flat"]["interval"] is None


def test_a_small_spread_is_never_shown_as_none(tmp_path: Path) -> None:
    compared = compare(make(tmp_path / "study", {"grpo": [0.5, 0.50002, 0.50001], "better": [0.6, 0.7, 0.8]}))
    assert "| grpo | 3 | 50.0 ± 0.002 |" in markdown(main_table(compared))  # 4.303 * 1e-5 / sqrt(3) = 2.5e-5


def test_two_values_are_not_spoken_of_with_three(tmp_path: Path) -> None:
    compared = compare(make(tmp_path / "study", {"grpo": [0.5, 0.6, 0.55], "better": [0.6, 0.75, 0.6]}))
    shown = markdown(main_table(compared))
    assert "TWO VALUES" not in shown and "equal in all" not in shown


def test_tables_say_n_seeds_floor_and_what_was_played(comparison: Comparison) -> None:
    shown = markdown(main_table(comparison)) + markdown(runs_table(comparison))
    for fact in ("0.125 with 4 pairs", "Holm: over 2 comparisons", "loss weighting: token", "tasks: 100",
                 "not the official benchmark", "| grpo | 4 |", "95 % t interval", "exact"):  # fmt: skip
        assert fact in shown
    # Wilson for 50 of 100: (0.5 + 1.9208/100 ± ...) / 1.0384 = [0.4038, 0.5962]
    assert "| grpo | 0 | 50.0 | [40.4, 59.6] | 100 | 8 |" in shown


def test_latex_escapes_names(comparison: Comparison) -> None:
    text = latex(main_table(comparison))
    assert r"noisy\_1 &" in text
    assert r"eval/success\_rate (\%)" in text
    assert "Δ" not in text.split(r"\toprule")[1]


def test_a_p_value_is_never_shown_as_zero(tmp_path: Path) -> None:
    """Twenty pairs of one sign: p = 2 / 2^20 = 1.9e-6, which four decimals would show as 0."""
    assert [p_text(value) for value in (1.0, 0.0313, 0.00005, 2 / 2**20)] == ["1.0000", "0.0313", "0.0001", "< 0.0001"]
    floor = 2 / 2**20
    difference = PairedDifference(0.1, 0.05, 0.15, 20, SignFlip(floor, floor, True))
    row = VariantRow("better", (), (), 0.5, None, difference, floor)
    comparison = Comparison("s", "eval/success_rate", "grpo", "share", (row,), 20, 20, {})
    assert "| 20 | < 0.0001 | < 0.0001 |" in markdown(main_table(comparison))
    assert "20 & $<$ 0.0001 & $<$ 0.0001" in latex(main_table(comparison))


def test_csv_and_json_hold_full_precision(comparison: Comparison) -> None:
    rows = {row["variant"]: row for row in csv.DictReader(io.StringIO(variants_csv(comparison)))}
    loaded = {row["variant"]: row for row in json.loads(json_text(comparison))["rows"]}
    for row in comparison.rows:
        assert float(rows[row.variant]["mean"]) == row.mean == loaded[row.variant]["mean"]
    assert rows["grpo"]["difference"] == ""
    assert loaded["better"]["difference"]["test"]["p_value"] == 0.125 == float(rows["better"]["p"])


def test_csv_has_what_else_differs_between_the_variants(tmp_path: Path) -> None:
    study = make(tmp_path / "study", {"grpo": [0.5, 0.6, 0.4, 0.5], "better": [0.7, 0.7, 0.7, 0.7]})
    for cell in study.cells:
        better = cell.variant == "better"
        rows = [
            {"update": 0, "eval/success_rate": 0.3, "eval/n": TASKS, "eval/length/mean": 40.0},
            {"update": 3, "eval/success_rate": 0.35, "eval/n": TASKS},
            {"update": 6, "eval/success_rate": 0.4 + cell.seed / 8, "eval/n": TASKS, "actor/entropy": 0.9},
            {"update": 12, "eval/success_rate": 0.5, "eval/n": TASKS, "eval/length/mean": 20.0 + cell.seed,
             "eval/valid_action_frac": 0.5, "actor/kl_loss": 0.125 * (1 + cell.seed), "actor/entropy": 0.25,
                 "env/episodes": 64 + cell.seed},
            *([{"update": 13, "actor/kl_loss": 0.5}] if better else []),
        ]  # fmt: skip
        if better and cell.seed == 2:
            del rows[3]["eval/valid_action_frac"]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (study.cell_dir(cell) / "metrics.jsonl").write_text(lines)
    write_tables(compare(study), tmp_path)
    runs = {row["folder"]: row for row in csv.DictReader((tmp_path / "runs.csv").open())}
    new = (
        "first_update",
        "first_value",
        "middle_update",
        "middle_value",
        "episodes",
        "kl_loss",
        "entropy",
        "valid_actions",
        "steps",
    )
    assert [runs["grpo-s3"][name] for name in new] == ["0", "0.3", "6", "0.775", "67", "0.5", "0.25", "0.5", "23.0"]
    assert [runs["better-s2"][name] for name in new] == ["0", "0.3", "6", "0.65", "66", "0.5", "0.25", "", "22.0"]
    variants = {row["variant"]: row for row in csv.DictReader((tmp_path / "ablation.csv").open())}
    means = {
        name: float(value) for name, value in variants["grpo"].items() if name in ("mean_first", "mean_middle", *new)
    }
    # middle: 0.4, 0.525, 0.65, 0.775; KL: 0.125, 0.25, 0.375, 0.5; steps: 20 .. 23
    assert means == pytest.approx({"mean_first": 0.3, "mean_middle": 0.5875, "episodes": 65.5, "kl_loss": 0.3125,
                                   "entropy": 0.25, "valid_actions": 0.5, "steps": 21.5})  # fmt: skip
    assert variants["better"]["valid_actions"] == ""  # one of its runs lacks it


def test_cells_that_are_missing_are_said_to_be(tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    (tmp_path / "study" / "better-s3" / "summary.json").write_text('{"exit_code": 143}')
    comparison = compare(study)
    assert comparison is not None
    better = comparison.rows[1]
    assert len(better.runs) == 3 and better.difference is not None and better.difference.n == 3
    assert "INCOMPLETE: 11 of 12 runs are done" in markdown(main_table(comparison))


def test_one_seed_has_no_interval_and_nothing_bold(tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    for summary in (tmp_path / "study").glob("*-s[123]/summary.json"):
        summary.unlink()
    comparison = compare(study)
    assert comparison is not None
    shown = markdown(main_table(comparison))
    assert "**" not in shown
    assert "| better | 1 | 60.0 | – | – | – | – |" in shown


def test_no_finished_cell_no_table(tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    for summary in (tmp_path / "study").glob("*/summary.json"):
        summary.unlink()
    assert compare(study) is None


def test_a_study_may_be_moved(tmp_path: Path) -> None:
    make(tmp_path / "study")
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    moved = compare(read_study(tmp_path / "elsewhere"))
    assert moved is not None
    assert {path.name for path in write_tables(moved, tmp_path / "elsewhere")} == {
        "ablation.md", "ablation.tex", "ablation.csv", "runs.csv", "ablation.json",
    }  # fmt: skip


def test_on_eighty_columns_nothing_is_cut(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("empg_cli.reports.tables.is_live_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    table = main_table(comparison)
    print_table(table, stream)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for cells in (table.header, *([cell.text for cell in row] for row in table.rows)):
        for word in " ".join(cells).split():
            assert word in text
