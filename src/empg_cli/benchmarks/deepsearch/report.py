"""Results in the layout of the paper's Table 2: a row per data source, then the ID, OOD and overall averages.

Averages are over sources, each counting once, as in arXiv 2509.09265: its overall column equals (3 ID + 2 OOD) / 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Final

from empg_cli.benchmarks.deepsearch.sources import group_of
from empg_cli.stats.intervals import wilson_interval

AVERAGES: Final = {"id": "ID", "ood": "OOD", "all": "overall"}


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What was measured on one data source."""

    source: str
    n: int
    successes: int
    score: float
    """Mean of the benchmark's score (the value of the answers)."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    name: str
    """A source, or `ID`, `OOD`, `overall`."""
    group: str
    """`id`, `ood`, or `all` for the overall row."""
    sources: int
    """How many sources the row averages."""
    n: int
    success_rate: float
    lo: float
    hi: float
    """95 % interval: Wilson for a source; for an average of sources, their Wilson limits combined by the method of
    variance estimates recovery (Zou and Donner 2008)."""
    score: float


def table2(results: Sequence[SourceResult]) -> list[SourceRow]:
    """ID sources, OOD sources, then the averages of the groups that have any. Order within a group as given."""
    rows = sorted((_source_row(result) for result in results), key=lambda row: row.group != "id")
    groups = {group: [row for row in rows if group in (row.group, "all")] for group in AVERAGES}
    return rows + [_average(group, members) for group, members in groups.items() if members]


def averages(kinds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ID, OOD and overall rows of an evaluation's `kinds`, as plain data."""
    results = [
        SourceResult(row["kind"], row["n"], round(row["n"] * row["success_rate"]), row["score"]) for row in kinds
    ]
    return [asdict(row) for row in table2(results) if row.name in AVERAGES.values()]


def averages_as_text(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line per average, for a terminal."""
    lines = []
    for row in rows:
        what = f"{row['name']}, mean of {row['sources']} source{'s' if row['sources'] > 1 else ''}"
        lines.append(
            f"{what:28} n {row['n']:<6} success {row['success_rate']:.1%} "
            f"[{100 * row['lo']:.1f}, {100 * row['hi']:.1f}]  score {row['score']:.3f}"
        )
    return lines


def as_markdown(rows: Sequence[SourceRow]) -> str:
    lines = ["| source | group | n | success % | 95 % interval | score |", "|---|---|---|---|---|---|"]
    for row in rows:
        name = f"**{row.name}** ({row.sources} sources)" if row.name in AVERAGES.values() else row.name
        interval = f"{100 * row.lo:.1f} to {100 * row.hi:.1f}"
        lines.append(
            f"| {name} | {row.group} | {row.n} | {100 * row.success_rate:.1f} | {interval} | {row.score:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _source_row(result: SourceResult) -> SourceRow:
    lo, hi = wilson_interval(result.successes, result.n)
    rate = result.successes / result.n
    return SourceRow(result.source, group_of(result.source), 1, result.n, rate, lo, hi, result.score)


def _average(group: str, rows: Sequence[SourceRow]) -> SourceRow:
    count = len(rows)
    rate = sum(row.success_rate for row in rows) / count
    below = sqrt(sum((row.success_rate - row.lo) ** 2 for row in rows)) / count
    above = sqrt(sum((row.hi - row.success_rate) ** 2 for row in rows)) / count
    return SourceRow(
        name=AVERAGES[group],
        group=group,
        sources=count,
        n=sum(row.n for row in rows),
        success_rate=rate,
        lo=rate - below,
        hi=rate + above,
        score=sum(row.score for row in rows) / count,
    )
