"""`empg ablate --across`: interquartile means over studies, against plain arithmetic."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from empg_cli.cli.app import app
from empg_cli.reports.across_tables import across_table, write_across
from empg_cli.reports.tables import markdown
from empg_cli.runs.study import Cell, Study, write_study
from empg_cli.studies.across import NotTogether, compare_across

ALFWORLD = {"grpo": [0.50, 0.55, 0.45, 0.60], "empg": [0.60, 0.65, 0.56, 0.69]}
WEBSHOP = {"grpo": [0.30, 0.20, 0.25, 0.35], "empg": [0.35, 0.20, 0.30, 0.45], "dapo": [0.4, 0.4, 0.4, 0.4]}


def study(
    folder: Path,
    values: dict[str, list[float]],
    benchmark: str,
    *,
    metric: str = "eval/success_rate",
    base: str = "grpo",
) -> Path:
    cells = tuple(Cell(name, seed, (), name, f"{name}-{seed}") for seed in range(4) for name in values)
    facts = {name: {"benchmark": benchmark, "model": "tiny", "updates": 8} for name in values}
    made = Study(folder, "demo", metric, base, (0, 1, 2, 3), cells, facts, dict.fromkeys(values, "c"))
    write_study(made)
    for cell in cells:
        run = made.cell_dir(cell)
        run.mkdir()
        row = {"update": 8, metric: values[cell.variant][cell.seed], "eval/n": 100}
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        (run / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
        (run / "run.json").write_text(json.dumps({"data": {"source": "generated"}}))
    return folder


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [study(tmp_path / "a", ALFWORLD, "alfworld"), study(tmp_path / "w", WEBSHOP, "webshop")]


def test_iqm_by_hand(two: list[Path]) -> None:
    rows = {row.variant: row for row in compare_across(two).rows}
    # grpo sorted: .20 .25 | .30 .35 .45 .50 | .55 .60: mean of the middle four = 1.60 / 4
    assert rows["grpo"].iqm.value == pytest.approx(0.40) and rows["grpo"].iqm.n == 8
    # empg sorted: .20 .30 | .35 .45 .56 .60 | .65 .69
    assert rows["empg"].iqm.value == pytest.approx(1.96 / 4)
    difference = rows["empg"].difference
    assert difference is not None and difference.value == pytest.approx(0.09)
    # seeds are redrawn in pairs within a study: the spread between the benchmarks is not in the interval
    spread = statistics.stdev([*ALFWORLD["grpo"], *WEBSHOP["grpo"]])
    assert 0 < difference.high - difference.low < spread
    assert rows["grpo"].difference is None


def test_the_table_names_studies_and_what_is_left_out(two: list[Path]) -> None:
    shown = markdown(across_table(compare_across(two)))
    assert "| grpo | 8 | 40.0 |" in shown and "| empg | 8 | 49.0 |" in shown
    for fact in ("alfworld (generated data), tiny, 8 runs", "left out: dapo", "FEW VALUES: 8", "86 to 93 %"):
        assert fact in shown
    assert "**" not in shown and "without width" not in shown


def test_values_without_spread_are_not_called_certain(tmp_path: Path) -> None:
    level = {"grpo": [0.1] * 4, "empg": [0.3] * 4}
    shown = markdown(across_table(compare_across([study(tmp_path / name, level, name) for name in "ab"])))
    assert "| empg | 8 | 30.0 | [30.0, 30.0] | +20.0 | [+20.0, +20.0] |" in shown
    assert "carry no spread, and are not certain for it" in shown


def test_a_study_that_is_named_twice_counts_once(two: list[Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(two[0].absolute())
    assert compare_across([*two, two[0], tmp_path / "link"]) == compare_across(two)


def test_four_formats(two: list[Path], tmp_path: Path) -> None:
    files = write_across(compare_across(two), tmp_path / "out")
    assert [path.name for path in files] == ["across.md", "across.tex", "across.csv", "across.json"]
    in_csv = {row["variant"]: row for row in csv.DictReader((tmp_path / "out" / "across.csv").open())}
    in_json = {row["variant"]: row for row in json.loads((tmp_path / "out" / "across.json").read_text())["rows"]}
    assert float(in_csv["empg"]["iqm"]) == in_json["empg"]["iqm"]["value"] == pytest.approx(0.49)
    assert in_csv["grpo"]["difference"] == "" and in_json["grpo"]["difference"] is None


def test_what_does_not_go_together_is_refused(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(NotTogether, match="two studies or more"):
        compare_across([two[0], two[0]])
    with pytest.raises(NotTogether, match="another metric each"):
        compare_across([two[0], study(tmp_path / "score", WEBSHOP, "webshop", metric="eval/score")])
    with pytest.raises(NotTogether, match="another base each"):
        compare_across([two[0], study(tmp_path / "base", WEBSHOP, "webshop", base="dapo")])
    entropies = [study(tmp_path / name, ALFWORLD, name, metric="actor/entropy") for name in ("alfworld", "webshop")]
    with pytest.raises(NotTogether, match="no common scale"):
        compare_across(entropies)
    for summary in two[1].glob("*/summary.json"):
        summary.unlink()
    with pytest.raises(NotTogether, match="no finished cell"):
        compare_across(two)


def ablate(*words: object) -> Result:
    return CliRunner().invoke(app, ["ablate", *map(str, words)])


def test_on_the_command_line(two: list[Path], tmp_path: Path) -> None:
    done = ablate("--across", *two, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "IQM of eval/success_rate (%)" in done.stdout and "across.tex" in done.stdout
    refused = ablate("--across", two[0], "seeds=3")
    assert refused.exit_code == 2 and "seeds=3: no such folder" in refused.stderr
    assert ablate("--out", "x").exit_code == 2


def test_one_seed_a_study_has_no_interval(two: list[Path]) -> None:
    """A variant of which every study has one run is left out, a base of that kind refused."""
    for variant in ("empg", "grpo"):
        for folder in two:
            for summary in sorted(folder.glob(f"{variant}-*/summary.json"))[1:]:
                summary.unlink()
        if variant == "empg":
            across = compare_across(two)
            assert [row.variant for row in across.rows] == ["grpo"] and "empg" in across.left_out
            assert "or with one seed in each, so left out: empg" in markdown(across_table(across))
    with pytest.raises(NotTogether, match="one finished run of the base, grpo"):
        compare_across(two)


def test_one_pair_a_study_has_no_difference(two: list[Path]) -> None:
    for folder in two:
        for variant, lost in (("empg", (2, 3)), ("grpo", (0, 1))):
            for seed in lost:
                (cell,) = folder.glob(f"{variant}-s{seed}/summary.json")
                cell.unlink()
        (folder / "grpo-s1" / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": "grpo-1"}))
    rows = {row.variant: row for row in compare_across(two).rows}
    assert rows["empg"].iqm.n == 4 and rows["empg"].difference is None
