"""`empg eval --compare A B` on files that runs and evaluations leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Empg = Callable[..., Result]

DATA = {"name": "alfworld", "source": "generated", "digest": "d1", "tasks": {"train": 9}, "nouns": "spacy"}


def evaluation(folder: Path, successes: str, **changes: Any) -> Path:
    """An `empg eval` folder; one letter per task, `+` solved."""
    folder.mkdir()
    tasks = [
        {"task_id": f"t{number}", "kind": "pick" if number < 4 else "cool", "success": letter == "+"}
        for number, letter in enumerate(successes)
    ]
    content = {"split": "valid_seen", "temperature": 0.4, "data": DATA, "tasks": tasks, "rules": {"max_steps": 50}}
    content |= changes
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


def test_counts_difference_and_p_are_those_of_the_tasks(empg: Empg, tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", "++--+---"), evaluation(tmp_path / "b", "+++++++-")
    shown = json.loads(empg("eval", "--compare", a, b, "--json").stdout)
    total = shown["total"]
    # B solves t2, t3, t5, t6 in addition and loses none: 4 discordant tasks, p = 2 / 2^4
    assert (total["both"], total["only_a"], total["only_b"], total["neither"]) == (3, 0, 4, 1)
    assert total["difference"]["value"] == 0.5
    assert total["p_value"] == 0.125
    assert [(row["kind"], row["n"], row["only_b"]) for row in shown["kinds"]] == [("pick", 4, 2), ("cool", 4, 2)]
    table = empg("eval", "--compare", a, b).stdout
    assert "+50.0*" in table  # the interval leaves out 0
    assert "0.1250" in table and "generated data" in table


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"data": {**DATA, "digest": "d2"}}, "not the same data: digest is d1"),
        ({"data": {**DATA, "source": "official"}}, "not the same data: source is generated"),
        ({"data": {**DATA, "nouns": "words"}}, "not the same data: nouns is spacy in"),
        (
            {"data": {**DATA, "tasks": {"train": 10}}, "split": "train"},
            "not the same split",
        ),
        ({"split": "valid_unseen"}, "not the same split"),
        ({"rules": {"max_steps": 30}}, "not the same tasks: 50 steps are allowed in"),
        ({"tasks": [{"task_id": "t0", "kind": "pick", "success": True}]}, "not the same tasks: 2 in"),
    ],
)
def test_what_is_not_comparable_is_refused(empg: Empg, tmp_path: Path, changes: dict[str, Any], answer: str) -> None:
    a, b = evaluation(tmp_path / "a", "+-"), evaluation(tmp_path / "b", "+-", **changes)
    assert answer in empg("eval", "--compare", a, b, code=2).stderr


def test_a_recording_and_its_replay_are_the_same_data(empg: Empg, tmp_path: Path) -> None:
    """And so is an index that is served at another place. Another engine, or another index, is not."""
    web = {"engine": "serper", "mode": "record", "recorded_answers": 3}
    served = {"engine": "http", "urls": ["http://127.0.0.1:1"], "index": {"digest": "d1"}}
    for number, (before, now, alike) in enumerate([
        (web, {**web, "mode": "replay", "recorded_answers": 9}, True),
        (web, {**web, "engine": "brave"}, False),
        (served, {**served, "urls": ["http://127.0.0.1:2"]}, True),
        (served, {**served, "index": {"digest": "d2"}}, False),
        ({**served, "index": {}}, {**served, "index": {}, "urls": ["http://127.0.0.1:2"]}, False),
    ]):  # fmt: skip
        a, b = (
            evaluation(tmp_path / f"{number}{name}", "+-", data={**DATA, "retrieval": part})
            for name, part in (("a", before), ("b", now))
        )
        empg("eval", "--compare", a, b, code=0 if alike else 2)


def test_only_the_total_may_be_bold(empg: Empg, tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", "----" * 6), evaluation(tmp_path / "b", "++++" * 6)
    stars = [line.split()[0] for line in empg("eval", "--compare", a, b).stdout.splitlines() if "*" in line]
    assert stars == ["all"]


def test_one_of_several_passes_is_compared(empg: Empg, tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "+-")
    (tmp_path / "passes").mkdir()
    one = evaluation(tmp_path / "passes" / "x", "+-") / "evaluation.json"
    many = tmp_path / "many"
    many.mkdir()
    (many / "evaluation.json").write_text(json.dumps({"passes": ["temperature-1-seed-0", "temperature-1-seed-1"]}))
    refused = empg("eval", "--compare", a, many, code=2).stderr
    assert "sums up 2 evaluations" in refused and "passes/temperature-1-seed-0.json" in refused
    assert json.loads(empg("eval", "--compare", a, one, "--json").stdout)["total"]["n"] == 2


def test_tasks_that_one_side_did_not_judge_are_left_out_and_said(empg: Empg, tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", "+-+-"), evaluation(tmp_path / "b", "++--")
    content = json.loads((a / "evaluation.json").read_text())
    content["tasks"][1] |= {"success": None, "status": "env_error"}
    (a / "evaluation.json").write_text(json.dumps(content))
    table = empg("eval", "--compare", a, b).stdout
    assert "1 tasks left out" in table
    shown = json.loads(empg("eval", "--compare", a, b, "--json").stdout)
    assert (shown["total"]["n"], shown["not_judged"]) == (3, 1)
    assert (shown["total"]["only_a"], shown["total"]["only_b"]) == (1, 0)  # t2; what B won at t1 is not known of A


def test_other_temperatures_are_said(empg: Empg, tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", "+-"), evaluation(tmp_path / "b", "+-", temperature=1.0)
    assert "The temperatures differ: 0.4 in A, 1 in B" in empg("eval", "--compare", a, b).stdout


def test_a_run_is_compared_by_its_last_evaluation(empg: Empg, finished_run: Path) -> None:
    first = finished_run / "evaluations" / "update-000000.json"
    shown = json.loads(empg("eval", "--compare", first, finished_run, "--json").stdout)
    assert (shown["a"]["update"], shown["b"]["update"]) == (0, 2)
    assert shown["total"]["n"] == 4


def test_mistakes_are_sentences(empg: Empg, tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "+")
    assert "holds no evaluation" in empg("eval", "--compare", a, tmp_path, code=2).stderr
    assert "takes no overrides" in empg("eval", "--compare", a, a, "seed=1", code=2).stderr
    (tmp_path / "broken.json").write_text("[]")
    assert "give an evaluation of empg" in empg("eval", "--compare", a, tmp_path / "broken.json", code=2).stderr
