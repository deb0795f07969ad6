"""Rows of metrics of two runs that should be one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

OF_THE_MACHINE = ("timing_s/", "perf/")
"""Times, memory, and how rows are put together."""


def rows_of(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def assert_same_rows(one: Path, other: Path, *, within: float = 1e-4) -> None:
    left, right = rows_of(one), rows_of(other)
    assert left, f"{one} has rows"
    assert [row["update"] for row in left] == [row["update"] for row in right]
    for before, after in zip(left, right, strict=True):
        names = {name for name in before if not name.startswith(OF_THE_MACHINE)}
        assert names == {name for name in after if not name.startswith(OF_THE_MACHINE)}
        for name in names:
            assert after[name] == pytest.approx(before[name], abs=within, rel=within), (name, before["update"])
