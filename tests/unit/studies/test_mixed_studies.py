"""Cells that are not made of the same: refused before they are played, and said above every number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import empg_cli
from empg_cli.cli.commands import report
from empg_cli.config import load
from empg_cli.reports.ablation_tables import json_text, main_table, variants_csv
from empg_cli.reports.across_tables import across_table
from empg_cli.reports.tables import Cell as TableCell
from empg_cli.reports.tables import Table, latex, markdown
from empg_cli.runs.facts import run_facts
from empg_cli.runs.folder import open_folder
from empg_cli.runs.mixture import MixedStudy, mixtures, refuse_unlike
from empg_cli.runs.provenance import CODE_BEFORE, code_before, code_digest, parts
from empg_cli.runs.study import Cell, Study, write_study
from empg_cli.studies.across import compare_across
from empg_cli.studies.comparison import compare
from empg_cli.studies.growth import entered
from empg_cli.studies.plan import make_study

VERSIONS = {"empg-cli": "0.1.0", "torch": "2.9.0", "transformers": "5.0.0", "tokenizers": "0.22", "numpy": "2.3"}
MADE = {
    "code": "aaaaaa",
    "commit": "c0ffee",
    "versions": VERSIONS,
    "data": {"source": "generated", "digest": "d1"},
    "weights": "w1",
}
SETTINGS = {
    "model": {"name": "tiny", "init": "pretrained", "path": "agent"},
    "benchmark": {"name": "alfworld", "data_dir": None},
    "trainer": {"warm_start": {"steps": 0}},
}


def make(folder: Path, made: dict[str, dict[str, Any]], mixed: str = "refuse", seeds: int = 3) -> Study:
    """A finished study of two variants, whose cells are made of `MADE` but for what is given by their folder."""
    names = ("grpo", "empg")
    cells = tuple(Cell(name, seed, (), name, f"{name}-{seed}") for seed in range(seeds) for name in names)
    facts = {name: {"benchmark": "alfworld", "model": "tiny", "updates": 8} for name in names}
    settings = dict.fromkeys(names, SETTINGS)
    metric = "eval/success_rate"
    costs = dict.fromkeys(names, "c")
    study = Study(folder, "demo", metric, "grpo", tuple(range(seeds)), cells, facts, costs, settings, mixed)
    write_study(study)
    for cell in cells:
        run = study.cell_dir(cell)
        run.mkdir()
        value = 0.5 + 0.01 * cell.seed**2 + (0.1 + 0.01 * cell.seed if cell.variant == "empg" else 0.0)
        (run / "metrics.jsonl").write_text(json.dumps({"update": 8, metric: value, "eval/n": 100}) + "\n")
        (run / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
        own = MADE | {"config_hash": cell.config_hash, "seed": cell.seed} | made.get(cell.folder, {})
        (run / "run.json").write_text(json.dumps({key: value for key, value in own.items() if value is not None}))
    return study


OTHERS = {
    "code": {"code": "bbbbbb", "commit": "decaf0"},
    "packages": {"versions": VERSIONS | {"torch": "2.10.0"}},
    "data": {"data": {"source": "generated", "digest": "d2"}},
    "weights": {"weights": "w2"},
    "code from outside": {"outside": {"algo.credit": {"target": "mine:credit", "digest": "o2"}}},
}


@pytest.mark.parametrize("part", OTHERS)
def test_each_part_that_differs_is_named_with_its_cells(part: str, tmp_path: Path) -> None:
    outside = {"outside": {"algo.credit": {"target": "mine:credit", "digest": "o1"}}}
    study = make(tmp_path / "study", {"empg-s0": outside, "empg-s1": outside, "empg-s2": outside | OTHERS[part]})
    (mixture,) = mixtures(study, study.cells)
    assert mixture.part == part
    apart = next(cells for cells in mixture.kinds.values() if "empg-s2" in cells)
    assert apart == ("empg-s2",)
    rest = {cell.folder for cell in study.cells if part != "code from outside" or cell.variant == "empg"}
    assert {name for cells in mixture.kinds.values() for name in cells} == rest
    assert str(mixture).startswith(f"{part}: ") and str(mixture).endswith("made empg-s2")


@pytest.mark.parametrize(
    "alike",
    [
        {"commit": "another", "config_hash": "x"},  # a document has changed, and no code
        {"versions": VERSIONS | {"wandb": "9", "empg-cli": "0.2.0", "python": "3.14"}},
        {"data": {"source": "generated", "digest": "d1", "retrieval": {"recorded_answers": 7}}},
        {"weights": None},  # not written yet
        {"model": {"digest": "after a warm start"}},
        {"outside": {"logger.sinks[0]": {"target": "mine:sink", "digest": "s"}}},
    ],
    ids=lambda facts: next(iter(facts)),
)
def test_what_makes_no_difference(alike: dict[str, Any], tmp_path: Path) -> None:
    facts = {"grpo-s0": {"data": {"source": "generated", "digest": "d1", "retrieval": {"recorded_answers": 3}}}}
    study = make(tmp_path / "study", {**(facts if "data" in alike else {}), "empg-s1": alike}, seeds=2)
    if "data" in alike:
        counted = [cell for cell in study.cells if cell.folder in ("grpo-s0", "empg-s1")]
        assert mixtures(study, counted) == ()
    else:
        assert mixtures(study, study.cells) == ()


def test_variants_may_differ_in_what_their_settings_say(tmp_path: Path) -> None:
    """Data and weights are compared where the settings that name them are equal; random weights, for each seed."""
    study = make(tmp_path / "study", {f"empg-s{seed}": OTHERS["data"] | OTHERS["weights"] for seed in range(3)})
    assert {mixture.part for mixture in mixtures(study, study.cells)} == {"data", "weights"}
    elsewhere = SETTINGS | {"benchmark": {"name": "webshop", "data_dir": None}}
    assert mixtures(replace(study, settings={"grpo": SETTINGS, "empg": elsewhere}), study.cells) == ()
    scratch = SETTINGS | {"model": {"name": "tiny-scratch", "init": "scratch"}}
    drawn = make(tmp_path / "drawn", {cell.folder: {"weights": f"of {cell.seed}"} for cell in study.cells})
    assert [mixture.part for mixture in mixtures(drawn, drawn.cells)] == ["weights"]
    drawn = replace(drawn, settings=dict.fromkeys(drawn.variants, scratch))
    assert mixtures(drawn, drawn.cells) == ()
    write_study(drawn)
    with pytest.raises(MixedStudy, match="weights"):
        refuse_unlike(drawn.cell_dir(drawn.cells[0]), {"weights": "of nobody else"})


def test_runs_of_an_older_empg_are_known_by_their_commit() -> None:
    def code_of(facts: dict[str, Any]) -> Any:
        return {part.name: made for part, made in parts(facts, None, name="x", seed=0).items()}.get("code")

    assert code_of({"commit": "c0ffee"}).told == "commit c0ffee"
    assert code_of({"commit": None, "versions": {"empg-cli": "0.1.0"}}).told == "version 0.1.0"
    assert code_of({}) is None
    new = code_of({"code": "aaaaaa", "commit": "c0ffee"})
    assert new.told == "aaaaaa (commit c0ffee)" and new.identity != code_of({"commit": "c0ffee"}).identity
    went_on = code_of({"code": "bbbbbb", "code_before": ["aaaaaa"], "commit": "c0ffee"})
    assert went_on.told == "aaaaaa, then bbbbbb (commit c0ffee)"
    old_model = {"model": {"digest": "w"}}
    assert "weights" not in {part.name for part in parts(old_model, None, name="x", seed=0)}
    assert "weights" in {part.name for part in parts(old_model, SETTINGS, name="x", seed=0)}
    warm = SETTINGS | {"trainer": {"warm_start": {"steps": 9}}}
    assert "weights" not in {part.name for part in parts(old_model, warm, name="x", seed=0)}


@pytest.fixture
def copied_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that `code_digest` takes for ours, with a file where each kind of file lies."""
    package = tmp_path / "empg_cli"
    for name in ("__init__.py", "loop.py", "cli/app.py", "reports/tables.py", "studies/plan.py", "rollout/a.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"# {name}\n")
    monkeypatch.setattr(empg_cli, "__file__", str(package / "__init__.py"))
    code_digest.cache_clear()
    yield package
    code_digest.cache_clear()


def test_the_code_is_what_a_run_passes_through(copied_package: Path) -> None:
    began = code_digest()
    for name, is_of_a_run in (("reports/tables.py", False), ("cli/app.py", False), ("studies/plan.py", False),
                              ("rollout/a.py", True), ("loop.py", True), ("rollout/new.py", True)):  # fmt: skip
        path = copied_package / name
        before = path.read_text() if path.exists() else None
        path.write_text("# edited\n")
        assert code_digest() == began  # of what this process runs, not of what lies there since
        code_digest.cache_clear()
        assert (code_digest() != began) == is_of_a_run, name
        path.unlink() if before is None else path.write_text(before)
        code_digest.cache_clear()
        assert code_digest() == began


def test_a_run_that_went_on_with_other_code_is_neither(copied_package: Path) -> None:
    now = code_digest()
    assert code_before({"code": now}) == {} and code_before({"code": now, CODE_BEFORE: [now]}) == {}
    assert code_before({"code": "a"}) == {CODE_BEFORE: ["a"]}
    assert code_before({"code": now, CODE_BEFORE: ["a"]}) == {CODE_BEFORE: ["a", now]}
    assert code_before({"commit": "c0ffee"}) == {CODE_BEFORE: ["c0ffee"]}
    assert code_before({}) == {CODE_BEFORE: ["unknown"]}


def test_a_table_over_unlike_cells_says_so_above_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make(tmp_path / "study", {"grpo-s2": OTHERS["code"]})
    compared = compare(study)
    assert compared is not None
    shown = markdown(main_table(compared))
    above = shown.partition("| variant |")[0]
    assert "MIXED code: aaaaaa (commit c0ffee) made grpo-s0, empg-s0, grpo-s1, empg-s1, empg-s2; " in above
    assert "bbbbbb (commit decaf0) made grpo-s2." in above
    assert "Δ and p leave out seeds that a variant and the base have unlike: empg (2)." in above
    empg = compared.rows[1]
    assert len(empg.runs) == 3 and empg.difference is not None
    assert empg.difference.n == 2  # seed 2 would compare the codes as well
    assert empg.difference.mean == pytest.approx((0.10 + 0.11) / 2)
    assert compared.differences(empg) == pytest.approx([0.10, 0.11])
    tex = latex(main_table(compared))
    assert tex.index("% MIXED code") < tex.index(r"\begin{tabular}")
    assert variants_csv(compared).splitlines()[1].endswith(",code")
    assert json.loads(json_text(compared))["mixtures"][0]["part"] == "code"
    assert compared.facts["code"] == "varies" and compared.facts["packages"].startswith("torch 2.9.0")


def test_seeds_of_one_code_each_are_told_and_all_compared(tmp_path: Path) -> None:
    study = make(tmp_path / "study", {"grpo-s2": OTHERS["code"], "empg-s2": OTHERS["code"]})
    compared = compare(study)
    assert compared is not None and compared.rows[1].difference is not None
    assert compared.rows[1].difference.n == 3
    assert "which are none here" in markdown(main_table(compared))
    alike = compare(make(tmp_path / "alike", {}))
    assert alike is not None and main_table(alike).warnings == ()
    assert alike.facts["commit"] == "c0ffee" and variants_csv(alike).splitlines()[1].endswith(",")


def test_warnings_of_a_table_stand_above_it_on_a_page_too(tmp_path: Path) -> None:
    from empg_cli.reports.page.page import write_page
    from empg_cli.runs.reading import open_runs

    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parents[2] / "fixtures" / "run-032f7dc", run)
    table = Table("numbers", ("variant", "value"), ((TableCell("a"), TableCell("0.123")),), (), ("MIXED <code>.",))
    write_page(open_runs([run]), tmp_path / "page.html", tables=[table])
    text = (tmp_path / "page.html").read_text()
    assert text.index("MIXED &lt;code&gt;.") < text.index("0.123")


def test_show_marks_what_ablate_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make(tmp_path / "study", {"grpo-s2": OTHERS["data"]})
    (table,) = report._study_tables([study.folder])
    assert any("MIXED data: " in warning for warning in table.warnings)


def test_a_cell_that_would_be_unlike_is_refused(tmp_path: Path) -> None:
    study = make(tmp_path / "study", {})
    run_dir = study.folder / "empg-s2"
    refuse_unlike(run_dir, MADE)
    with pytest.raises(MixedStudy) as raised:
        refuse_unlike(run_dir, MADE | OTHERS["code"])
    told = str(raised.value)
    assert "bbbbbb (commit decaf0) made empg-s2 (now)" in told and "aaaaaa (commit c0ffee) made grpo-s0" in told
    for way in ("give another run_dir", "delete the cells", "ablation.mixed=mark"):
        assert way in told
    refuse_unlike(study.folder / "no-cell", MADE | OTHERS["code"])  # anything else may lie in that folder
    refuse_unlike(tmp_path / "run", MADE | OTHERS["code"])
    for cell in study.cells:
        (study.cell_dir(cell) / "metrics.jsonl").write_text("")  # nothing was played: nothing to be unlike
    refuse_unlike(run_dir, MADE | OTHERS["code"])


def test_a_study_that_marks_takes_every_cell(tmp_path: Path) -> None:
    study = make(tmp_path / "study", {}, mixed="mark")
    refuse_unlike(study.folder / "empg-s2", MADE | OTHERS["code"])


def test_a_cell_is_not_gone_on_with_by_other_code_even_alone(tmp_path: Path) -> None:
    study = make(tmp_path / "study", {}, seeds=1)
    shutil.rmtree(study.folder / "empg-s0")
    with pytest.raises(MixedStudy, match=r"grpo-s0 \(now\)"):
        refuse_unlike(study.folder / "grpo-s0", OTHERS["code"])


def test_the_folder_of_a_cell_on_other_data_is_left_as_it_is(tmp_path: Path) -> None:
    """What `empg train` does at its start, before a model is loaded."""
    cfg = load(["experiment=smoke", "resume=auto"])
    study = make(tmp_path / "study", {cell: run_facts(cfg, MADE["data"]) for cell in ("grpo-s0", "empg-s0")}, seeds=1)
    run_dir = study.folder / "empg-s0"
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(MixedStudy, match="generated d2"):
        open_folder(cfg, run_dir, data=OTHERS["data"]["data"], task_kinds=[])
    assert {
        path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".owner"
    } == before


def test_other_code_is_refused_before_anything_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["ablation=dapo_empg", "run_dir=study"]
    study = entered(make_study([*words, "seeds=1"]))
    for cell in study.cells:
        run = study.cell_dir(cell)
        run.mkdir()
        facts = run_facts(load([*cell.overrides, f"seed={cell.seed}"]), MADE["data"]) | {"code": "aaaaaa"}
        (run / "run.json").write_text(json.dumps(facts))
        (run / "metrics.jsonl").write_text('{"update": 0}\n')
    with pytest.raises(MixedStudy, match=r"code: .* \(now\); aaaaaa"):
        make_study([*words, "seeds=2"])
    assert entered(make_study([*words, "seeds=2", "ablation.mixed=mark"])).mixed == "mark"
    for cell in study.cells:
        done = {"exit_code": 0, "cell_hash": cell.cell_hash}
        (study.cell_dir(cell) / "summary.json").write_text(json.dumps(done))
    make_study([*words, "seeds=1"])  # nothing is left to play: a table of what there is


def test_moved_data_is_the_same_and_other_data_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from empg_cli.studies import growth

    monkeypatch.chdir(tmp_path)
    for name in ("old", "new", "other"):
        Path(name).mkdir()
    data = {"old": MADE["data"], "new": MADE["data"], "other": OTHERS["data"]["data"]}
    opened: list[str] = []

    def data_at(settings: dict[str, Any]) -> Any:
        opened.append(settings["benchmark"]["data_dir"])
        return data[settings["benchmark"]["data_dir"]]

    monkeypatch.setattr(growth, "_data_at", data_at)
    words = ["ablation=dapo_empg", "run_dir=study", "seeds=1"]
    study = entered(make_study([*words, "benchmark.data_dir=old"]))
    from empg_cli import config

    for cell in study.cells:
        run = study.cell_dir(cell)
        run.mkdir()
        cfg = load([*cell.overrides, f"seed={cell.seed}", "benchmark.data_dir=old"])
        config.write(cfg, run / "config.yaml")
        (run / "run.json").write_text(json.dumps(run_facts(cfg, data["old"])))
        (run / "metrics.jsonl").write_text('{"update": 0}\n')
        (run / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    entered(make_study([*words, "benchmark.data_dir=old"]))
    assert opened == []  # the place is as it was: nothing is opened
    moved = entered(make_study([*words, "benchmark.data_dir=new"]))
    assert set(opened) == {"new"} and len(moved.done()) == 2
    with pytest.raises(MixedStudy, match="data: generated d2"):
        make_study([*words, "benchmark.data_dir=other"])
    make_study([*words, "benchmark.data_dir=other", "ablation.mixed=mark"])


def test_studies_of_other_code_are_not_put_together_unasked(tmp_path: Path) -> None:
    one, other = (make(tmp_path / name, {}) for name in ("one", "other"))
    together = [one.folder, other.folder]
    assert compare_across(together).mixtures == ()
    other = make(tmp_path / "later", {cell.folder: OTHERS["code"] for cell in one.cells})
    together = [one.folder, other.folder]
    with pytest.raises(MixedStudy, match=r"(?s)code: aaaaaa in .*one; bbbbbb in .*later.*ablation.mixed=mark"):
        compare_across(together)
    warning = across_table(compare_across(together, mixed="mark")).warnings[0]
    assert warning.startswith("MIXED code: aaaaaa in")
    inside = make(tmp_path / "inside", {"empg-s1": OTHERS["weights"]})
    with pytest.raises(MixedStudy, match=r"inside: weights: "):
        compare_across([one.folder, inside.folder])
    # other data and weights from study to study are what such a table is about
    elsewhere = make(tmp_path / "elsewhere", {cell.folder: OTHERS["data"] | OTHERS["weights"] for cell in one.cells})
    assert compare_across([one.folder, elsewhere.folder]).mixtures == ()
