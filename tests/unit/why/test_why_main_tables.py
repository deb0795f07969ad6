"""Tables of the main comparisons (scripts/why/main_tables.py), on records made for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.why import main_tables, records, tables
from scripts.why.recompute import NotComparable
from tests.unit.why.test_why_page import pack

LEVELS: dict[str, tuple[str, dict[str, float]]] = {
    "main-alfworld": ("grpo", {"grpo": 0.2, "grpo-entropy": 0.1, "empg": 0.3, "dapo": 0.2}),
    "main-webshop": ("grpo-entropy", {"grpo": 0.4, "grpo-entropy": 0.6, "empg": 0.5, "dapo": 0.6}),
    "main-deepsearch": ("grpo", {"grpo": 0.8, "grpo-entropy": 0.8, "empg": 0.9}),
}
"""Base and success of every arm; the same at both seeds but where a test says otherwise."""


def record(
    path: Path,
    base: str,
    values: Mapping[str, Mapping[int, float]],
    *,
    code: str = "a",
    absent: str = "",
    scores: Mapping[str, float] | None = None,
    **last: Any,
) -> None:
    """
    Args:
        absent: an arm whose runs are not done.
        scores: variant -> score, the same at every seed.
        last: metric -> variant -> value, the same at every seed.
    """
    cells = [{"variant": name, "seed": seed} for name, own in values.items() for seed in own]
    done = [cell for cell in cells if cell["variant"] != absent]
    runs = "".join(f"{cell['variant']},{cell['seed']},{values[cell['variant']][cell['seed']]}\n" for cell in done)
    files = {"runs.csv": f"variant,seed,value\n{runs}", "study.json": json.dumps({"base": base, "cells": cells})}
    for cell in done:
        folder = f"{cell['variant']}-s{cell['seed']}"
        files[f"{folder}/run.json"] = json.dumps({"code": code, "platform": f"cpu-{cell['seed'] // 27}"})
        rows: list[dict[str, float]] = [
            {"eval/success_rate": 0.0},
            {"eval/success_rate": values[cell["variant"]][cell["seed"]]},
        ]
        rows[1] |= {"eval/score": scores[cell["variant"]]} if scores else {}
        rows[1] |= {f"eval/{metric}/success_rate": own[cell["variant"]] for metric, own in last.items()}
        files[f"{folder}/metrics.jsonl"] = "\n".join(map(json.dumps, rows)) + "\n"
    pack(path, files)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for study, (base, values) in LEVELS.items():
        record(tmp_path / f"{study}.tar.xz", base, {name: {25: value, 26: value} for name, value in values.items()})
    return tmp_path


def test_over_all_benchmarks_every_arm_is_beside_the_base_of_each(three: Path) -> None:
    """Constant within a study, so the bootstrap has nothing to draw. Of six values the IQM leaves out the lowest and
    the highest: empg (.3 + .5 + .5 + .9) / 4 = .55; bases .2 .2 .6 .6 .8 .8, so (.2 + .6 + .6 + .8) / 4 = .55. Mean of
    +.1, -.1 and +.1 in each seed: +.033. Zeros of what is itself a base somewhere are no difference."""
    head, _, *rows = tables.table(three, "main-across").splitlines()
    assert head.startswith("| arm | IQM, % | IQM − the bases' | mean − the bases' | in `main-alfworld` | in `main-web")
    assert rows == [
        "| `grpo` | 45.0 [45.0, 45.0] | – | – | base | −20.0 | base |",
        "| `grpo-entropy` | 52.5 [52.5, 52.5] | – | – | −10.0 | base | +0.0 |",
        "| `empg` | 55.0 [55.0, 55.0] | +0.0 [+0.0, +0.0] | +3.3 [+3.3, +3.3] | +10.0 | −10.0 | +10.0 |",
    ]


def test_the_mean_over_benchmarks_is_paired_by_seed(three: Path) -> None:
    """empg is .2 above the base of ALFWorld at seed 26: (.1 - .1 + .1) / 3, (.2 - .1 + .1) / 3; .05 ± 12.706 / 60."""
    base, values = LEVELS["main-alfworld"]
    found = {name: {25: value, 26: value + 0.1 * (name == "empg")} for name, value in values.items()}
    record(three / "main-alfworld.tar.xz", base, found)
    (empg,) = [line for line in tables.table(three, "main-across").splitlines() if "`empg`" in line]
    assert empg.split(" | ")[3:5] == ["+5.0 [−16.2, +26.2]", "+15.0"]


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({"absent": "empg"}, "main-webshop.tar.xz: 2 of 6 cells are not done; nothing is said before"),
        ({"code": "b"}, "not of the same code: a in main-alfworld, b in main-webshop, a in main-deepsearch"),
        ({"seeds": (1, 2)}, "not of the same seeds: [25, 26] in main-alfworld, [1, 2] in main-webshop"),
    ],
)
def test_what_is_not_finished_or_not_alike_has_no_table(
    changed: dict[str, Any],
    answer: str,
    three: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seeds = changed.get("seeds", (25, 26))
    own = {"grpo": 0.1, "grpo-entropy": 0.2, "empg": 0.3}
    values = {name: dict.fromkeys(seeds, value) for name, value in own.items()}
    record(
        three / "main-webshop.tar.xz",
        "grpo",
        values,
        **{key: value for key, value in changed.items() if key != "seeds"},
    )
    with pytest.raises(NotComparable) as raised:
        tables.table(three, "main-across")
    assert answer in str(raised.value)
    monkeypatch.setattr("sys.argv", ["tables", "main-across", "--records", str(three)])
    with pytest.raises(SystemExit, match="2"):
        tables.main()
    assert answer in capsys.readouterr().err


def test_the_primary_comparisons_are_corrected_together(three: Path) -> None:
    """Two pairs of one sign: p 2 / 4, and at most 1 after Holm; +.1 and +.3: .2 ± 12.706 * .1."""
    record(three / "main-alfworld-1250.tar.xz", "grpo", {"grpo": {25: 0.2, 26: 0.2}, "empg": {25: 0.3, 26: 0.5}})
    lines = tables.table(three, "main-primary").splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [f"| `{name}`" for name in main_tables.PRIMARY]
    assert lines[1] == "| `main-alfworld-1250` | `grpo` | 2 | +20.0 ± 127.1 | 0.500 | 1.000 |"
    assert lines[2] == "| `main-webshop` | `grpo-entropy` | 2 | −10.0 ± 0.0 | 0.500 | 1.000 |"


def test_the_pairs_that_arms_are_there_for_on_known_and_unknown_questions(tmp_path: Path) -> None:
    """empg is .1 and .3 above the base; arms that are not there have no row."""
    values = {
        "grpo": (0.2, 0.2),
        "grpo-entropy": (0.1, 0.1),
        "empg": (0.3, 0.5),
        "permuted": (0.2, 0.4),
        "scaling": (0.2, 0.3),
    }
    ood = {"grpo": 0.05, "grpo-entropy": 0.05, "empg": 0.06, "permuted": 0.05, "scaling": 0.08}
    found = {name: dict(zip((25, 26), own, strict=True)) for name, own in values.items()}
    record(tmp_path / "main-deepsearch.tar.xz", "grpo", found, id=dict.fromkeys(values, 0.5), ood=ood)
    assert tables.table(tmp_path, "main-deepsearch-pairs").splitlines() == [
        "| difference | seeds | success | ID | OOD |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| `empg` − `grpo` | 2 | +20.00 ± 127.06 | +0.00 ± 0.00 | +1.00 ± 0.00 |",
        "| `empg` − `grpo-entropy` | 2 | +30.00 ± 127.06 | +0.00 ± 0.00 | +1.00 ± 0.00 |",
        "| `empg` − `permuted` | 2 | +10.00 ± 0.00 | +0.00 ± 0.00 | +1.00 ± 0.00 |",
        "| `scaling` − `grpo` | 2 | +5.00 ± 63.53 | +0.00 ± 0.00 | +3.00 ± 0.00 |",
    ]


@pytest.mark.parametrize(("score", "titles"), [(0.7, "success | score"), (None, "success")])
def test_a_score_is_told_where_it_is_not_success_again(tmp_path: Path, score: float | None, titles: str) -> None:
    values = {"grpo": {25: 0.1, 26: 0.1}, "empg": {25: 0.2, 26: 0.2}}
    record(tmp_path / "main-webshop.tar.xz", "grpo", values, scores={"grpo": score or 0.1, "empg": score or 0.2})
    head, _, line = tables.table(tmp_path, "main-webshop-pairs").splitlines()
    assert head == f"| difference | seeds | {titles} |"
    assert line.startswith("| `empg` − `grpo` | 2 | +10.00 ± 0.00 |") and line.count("|") == head.count("|")


def test_elsewhere_success_is_all_there_is(three: Path) -> None:
    assert tables.table(three, "main-webshop-pairs").splitlines()[0] == "| difference | seeds | success |"


def test_seeds_that_were_played_on_two_platforms_are_known(tmp_path: Path) -> None:
    record(tmp_path / "one.tar.xz", "grpo", {"grpo": {25: 0.1, 27: 0.1}, "empg": {25: 0.2, 27: 0.2}})
    assert records.split_seeds(tmp_path / "one.tar.xz") == []
    cells = [{"variant": name, "seed": seed} for name in ("grpo", "empg", "not-done") for seed in (1, 2)]
    platforms = {"grpo-s1": "a", "empg-s1": "b", "grpo-s2": "b", "empg-s2": "b"}
    files = {f"{folder}/run.json": json.dumps({"platform": name}) for folder, name in platforms.items()}
    pack(tmp_path / "two.tar.xz", files | {"study.json": json.dumps({"cells": cells})})
    assert records.split_seeds(tmp_path / "two.tar.xz") == [1]


def test_a_base_that_is_a_baseline_is_compared_once(three: Path) -> None:
    """On WebShop `empg` − base is `empg` − `grpo-entropy`: .5 - .6."""
    lines = tables.table(three, "main-webshop-pairs").splitlines()
    assert [line for line in lines if "`empg` − `grpo-entropy`" in line] == [
        "| `empg` − `grpo-entropy` | 2 | −10.00 ± 0.00 |"
    ]
