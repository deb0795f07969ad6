"""The layout of the paper's Table 2, checked against its own numbers."""

from __future__ import annotations

import pytest

from empg_cli.benchmarks.deepsearch.report import SourceResult, as_markdown, table2
from empg_cli.benchmarks.deepsearch.sources import canonical, group_of
from empg_cli.stats.intervals import wilson_interval


def test_overall_is_the_mean_over_sources_as_in_the_paper() -> None:
    # arXiv 2509.09265, Table 2, DAPO: ID 63.5 over three sources, OOD 59.8 over two, overall 62.0.
    # Sources with those averages: (60 + 65.5 + 65) / 3 = 63.5 and (50 + 69.6) / 2 = 59.8.
    # Overall: (3 * 63.5 + 2 * 59.8) / 5 = 62.02
    rows = table2(
        [
            SourceResult("musique", 1000, 500, 0.5),
            SourceResult("webwalker", 100, 60, 0.6),
            SourceResult("hotpotqa", 1000, 655, 0.7),
            SourceResult("bamboogle", 125, 87, 0.7),
            SourceResult("2wiki", 200, 130, 0.65),
        ]
    )
    by_name = {row.name: row for row in rows}
    assert [row.name for row in rows] == [
        "webwalker", "hotpotqa", "2wiki", "musique", "bamboogle", "ID", "OOD", "overall",
    ]  # fmt: skip
    assert by_name["ID"].success_rate == pytest.approx(0.635)
    assert by_name["OOD"].success_rate == pytest.approx(0.598)
    assert by_name["overall"].success_rate == pytest.approx(0.6202)
    assert by_name["overall"].success_rate == pytest.approx((3 * 0.635 + 2 * 0.598) / 5)
    assert by_name["ID"].score == pytest.approx(0.65)
    assert (by_name["ID"].n, by_name["OOD"].n, by_name["overall"].n) == (1300, 1125, 2425)
    assert (by_name["ID"].sources, by_name["OOD"].sources, by_name["overall"].sources) == (3, 2, 5)


def test_intervals() -> None:
    rows = {row.name: row for row in table2([SourceResult("nq", 100, 60, 0.6), SourceResult("popqa", 100, 60, 0.6)])}
    lo, hi = wilson_interval(60, 100)
    assert (rows["nq"].lo, rows["nq"].hi) == (lo, hi)
    assert (rows["ID"].lo, rows["ID"].hi) == pytest.approx((lo, hi))  # one source: its own interval
    # two equal sources: 0.6 - sqrt(2 (0.6 - lo)^2) / 2 = 0.6 - (0.6 - lo) / sqrt(2)
    assert rows["overall"].lo == pytest.approx(0.6 - (0.6 - lo) / 2**0.5)
    assert rows["overall"].hi == pytest.approx(0.6 + (hi - 0.6) / 2**0.5)


def test_averages_of_groups_without_sources_are_left_out() -> None:
    assert [row.name for row in table2([SourceResult("depth3", 10, 0, 0.0)])] == ["depth3", "OOD", "overall"]


def test_an_interval_is_not_empty_at_the_ends() -> None:
    rows = table2([SourceResult("nq", 10, 10, 1.0), SourceResult("hotpotqa", 10, 10, 1.0)])
    assert rows[-1].success_rate == 1.0
    assert rows[-1].lo < 1.0
    assert rows[-1].hi == 1.0


def test_markdown() -> None:
    text = as_markdown(table2([SourceResult("2hop", 200, 100, 0.5), SourceResult("depth3", 200, 50, 0.25)]))
    lines = text.splitlines()
    assert lines[2].startswith("| 2hop | id | 200 | 50.0 | 43.1 to 56.9 | 0.500 |")
    assert lines[-1].startswith("| **overall** (2 sources) | all | 400 | 37.5 |")


@pytest.mark.parametrize(
    ("written", "name", "group"),
    [
        ("Bamboogle", "bamboogle", "ood"),
        ("tq", "triviaqa", "id"),
        ("2WikiMultihopQA", "2wiki", "id"),
        ("searchR1_hotpotqa", "hotpotqa", "id"),
        ("MuSiQue", "musique", "ood"),
        ("something new", "something_new", "ood"),
        ("2hop", "2hop", "id"),
        ("intersection", "intersection", "ood"),
    ],
)
def test_names_and_groups(written: str, name: str, group: str) -> None:
    assert canonical(written) == name
    assert group_of(name) == group
