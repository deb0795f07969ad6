"""plan.json: written before the first run, never rewritten, and everything that came later stands behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from empg_cli.errors import DataError
from empg_cli.runs.study import Study
from empg_cli.studies.comparison import compare
from empg_cli.studies.growth import entered
from empg_cli.studies.plan import make_study
from empg_cli.studies.preregistration import PLAN_FILE, preregister, read_plan

FILE = Path("study") / PLAN_FILE


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def enter(*words: str) -> Study:
    return entered(make_study(["run_dir=study", "ablation=dapo_empg", "experiment=smoke", *words]))


def content() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


def test_the_plan_says_what_is_asked_and_when() -> None:
    study = enter("seeds=2")
    plan = content()
    cell = next(cell for cell in study.cells if cell.variant == "dapo_empg")
    assert (plan["study"], plan["metric"], plan["base"], plan["seeds"]) == (
        "dapo_empg",
        "eval/success_rate",
        "dapo",
        [0, 1],
    )
    assert plan["variants"]["dapo_empg"]["overrides"] == list(cell.overrides) == ["algo=dapo_empg"]
    assert plan["variants"]["dapo_empg"]["settings"] != plan["variants"]["dapo"]["settings"]
    assert plan["runs_begun"] == 0 and "never its best" in plan["rule"]
    assert {"written", "code", "commit", "versions", "sha256"} <= set(plan)
    found = read_plan(study.folder)
    assert found is not None
    assert str(found) == f"sha256 {plan['sha256'][:12]}, written {plan['written']} before the first run"


def test_the_same_command_again_changes_nothing() -> None:
    enter("seeds=2")
    before = FILE.read_bytes()
    enter("seeds=2")
    enter("seeds=1")
    assert FILE.read_bytes() == before


def test_what_comes_later_is_an_amendment_with_the_runs_that_had_begun() -> None:
    study = enter("seeds=2")
    before = content()
    for cell in study.cells[:3]:
        study.cell_dir(cell).mkdir()
    enter("seeds=[0,1,5]")
    study.cell_dir(study.cells[3]).mkdir()
    enter("seeds=1", '+ablation.variants.more=["algo=dapo","algo.group_size=4"]', "ablation.mixed=mark")
    after = content()
    first, second = after.pop("amendments")
    unsealed = [{key: plan[key] for key in plan if key not in ("seal", "amendments")} for plan in (before, after)]
    assert unsealed[0] == unsealed[1]  # the plan itself, its sha256 too
    assert (first["new seeds"], first["runs_begun"], "new variants" in first) == ([5], 3, False)
    assert (list(second["new variants"]), second["runs_begun"], second["mixed"]) == (["more"], 4, "mark")
    assert str(read_plan(study.folder)).endswith(
        "before the first run; then new seeds 5 (3 runs begun); then mixed mark, new variants more (4 runs begun)"
    )


def test_what_is_redefined_or_dropped_is_an_amendment() -> None:
    """Of a folder whose study.json is gone, with another variant of the same name, fewer arms and fewer seeds."""
    study = enter("seeds=2", '+ablation.variants.more=["algo=grpo"]')
    (study.folder / "study.json").unlink()
    enter("seeds=1", '+ablation.variants.more=["algo=empg"]')
    (study.folder / "study.json").unlink()
    enter("seeds=1")
    first, second = content()["amendments"]
    assert list(first["redefined variants"]) == ["more"] and first["dropped seeds"] == [1]
    assert second["dropped variants"] == ["more"] and "dropped seeds" not in second


def test_data_that_was_moved_changes_no_plan() -> None:
    study = enter("seeds=1")

    def at(place: str) -> Study:
        settings = {
            n: {**own, "benchmark": {**own["benchmark"], "data_dir": place}} for n, own in study.settings.items()
        }
        return replace(study, settings=settings, folder=Path("there"))

    Path("there").mkdir()
    preregister(at("/a"))
    before = Path("there/plan.json").read_bytes()
    preregister(at("/b"))
    assert Path("there/plan.json").read_bytes() == before


def test_a_plan_that_comes_after_runs_says_so() -> None:
    study = enter("seeds=2")
    FILE.unlink()
    study.cell_dir(study.cells[0]).mkdir()
    preregister(study)
    assert "when 1 runs had begun" in str(read_plan(study.folder))


def test_another_metric_is_an_amendment() -> None:
    study = enter("seeds=1")
    for cell in study.cells:
        folder = study.cell_dir(cell)
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    enter("seeds=1", "ablation.metric=eval/score")
    assert [amendment["metric"] for amendment in content()["amendments"]] == ["eval/score"]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda plan: plan | {"base": "dapo_empg"}, "was changed after it was written"),
        (lambda plan: plan | {"runs_begun": 9}, "was changed after it was written"),
        (lambda plan: plan | {"amendments": []}, "was changed after it was written"),
        (lambda plan: plan | {"amendments": [plan["amendments"][0] | {"runs_begun": 0}]}, "was changed after"),
        (lambda plan: {"sha256": plan["sha256"]}, "no plan that `empg ablate` has written"),
        (lambda plan: [plan], "no plan that `empg ablate` has written"),
    ],
)
def test_a_plan_that_was_changed_by_hand_is_refused(change: Any, answer: str) -> None:
    study = enter("seeds=1")
    study.cell_dir(study.cells[0]).mkdir()
    enter("seeds=2")
    FILE.write_text(json.dumps(change(content())))
    with pytest.raises(DataError, match=answer):
        read_plan(study.folder)
    with pytest.raises(DataError, match=answer):
        enter("seeds=3")


def test_the_table_names_the_plan() -> None:
    study = enter("seeds=1")
    for cell in study.cells:
        folder = study.cell_dir(cell)
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
        (folder / "run.json").write_text("{}")
        (folder / "metrics.jsonl").write_text(json.dumps({"update": 2, "eval/success_rate": 0.5}) + "\n")
    found = compare(study)
    assert found is not None
    assert found.facts["plan"] == str(read_plan(study.folder))
