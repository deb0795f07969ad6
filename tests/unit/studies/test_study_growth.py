"""A study grows by variants and seeds, whoever asks for them and when; nothing in it is redefined or lost."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from empg_cli import config
from empg_cli.config import load
from empg_cli.config.problems import ConfigError
from empg_cli.owner import FolderOwned, owning
from empg_cli.runs import format as run_format
from empg_cli.runs import study as studies_on_disk
from empg_cli.runs.facts import config_hash
from empg_cli.runs.format import Added, without_new_keys
from empg_cli.runs.study import STUDY_FILE, Cell, Study, player_of, read_study, write_study, writing_into
from empg_cli.studies.growth import entered
from empg_cli.studies.plan import make_study

IN = ("run_dir=study", "ablation=dapo_empg")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def enter(*words: str) -> Study:
    return entered(make_study([*IN, *words]))


def finish(study: Study, cell: Cell) -> Path:
    """What a finished run of the cell leaves, as far as a study looks at it."""
    folder = study.cell_dir(cell)
    folder.mkdir()
    config.write(load([*cell.overrides, f"seed={cell.seed}", *data_of(study, cell)]), folder / "config.yaml")
    (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    (folder / "run.json").write_text(json.dumps({"config_hash": cell.config_hash, "seed": cell.seed}))
    return folder


def data_of(study: Study, cell: Cell) -> list[str]:
    place = study.settings[cell.variant]["benchmark"]["data_dir"]
    return [f"benchmark.data_dir={place}"] if place else []


def test_seeds_that_come_later_join_the_others() -> None:
    first = enter("seeds=2")
    for cell in first.cells:
        finish(first, cell)
    whole = enter("seeds=[7]")
    assert whole.seeds == (0, 1, 7)
    assert [cell.folder for cell in whole.done()] == ["dapo-s0", "dapo_empg-s0", "dapo-s1", "dapo_empg-s1"]
    assert [cell.folder for cell in whole.pending()] == ["dapo-s7", "dapo_empg-s7"]
    assert read_study(Path("study")) == whole == enter("seeds=1")  # asking for less takes nothing away
    assert [cell.cell_hash for cell in whole.cells if cell.seed == 7] == [
        cell.cell_hash for cell in make_study([*IN, "seeds=[7]"]).cells
    ]


def test_variants_that_come_later_join_the_others() -> None:
    enter("seeds=[0,4]")
    whole = enter("seeds=1", '+ablation.variants.more=["algo=dapo_kl","algo.group_size=4"]')
    assert whole.variants == ("dapo", "dapo_empg", "more")
    assert [cell.folder for cell in whole.cells][:3] == ["dapo-s0", "dapo_empg-s0", "more-s0"]
    assert len(whole.cells) == 6  # the new variant with the old seeds too: a study is all of its variants times seeds
    assert enter("seeds=1").variants == whole.variants
    assert whole.settings["more"]["algo"]["group_size"] == 4 and set(whole.facts) == set(whole.variants)
    assert [cell.folder for cell in whole.part(["more"], [4])] == ["more-s4"]


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["trainer.lr=0.25"], ["dapo: trainer.lr: is 0.000", "dapo_empg: trainer.lr", "(got 0.25)"]),
        (["algo.group_size=3", "seeds=[5]"], ["dapo: algo.group_size: is 8 there (got 3)"]),
        (['ablation.variants.dapo_empg=["algo=dapo_empg","algo.credit.k=9.0"]'], ["dapo_empg: algo.credit.k"]),
        (["ablation.name=other"], ["ablation.name: is dapo_empg there (got other)"]),
        (["ablation.base=dapo_empg"], ["ablation.base: is dapo in this study (got dapo_empg)", "all cells are done"]),
        (["ablation.metric=actor/entropy"], ["ablation.metric: is eval/success_rate in this study"]),
    ],
)
def test_what_is_there_is_not_redefined(words: list[str], answers: list[str]) -> None:
    enter("seeds=1")
    before = Path("study", STUDY_FILE).read_bytes()
    with pytest.raises(ConfigError) as raised:
        enter(*words)
    for answer in answers:
        assert answer in str(raised.value)
    assert Path("study", STUDY_FILE).read_bytes() == before


def test_a_finished_study_may_be_asked_another_question() -> None:
    study = enter("seeds=1")
    for cell in study.cells:
        finish(study, cell)
    asked = enter("seeds=1", "ablation.metric=actor/entropy", "ablation.base=dapo_empg")
    assert (asked.metric, asked.base) == ("actor/entropy", "dapo_empg")
    with pytest.raises(ConfigError, match=r"ablation.metric: is actor/entropy"):
        enter("seeds=2")  # new cells belong to the question that the study has


def test_many_commands_at_once_lose_nothing() -> None:
    """Each has read the folder before the others wrote: without a lock the last would win."""
    plans = [make_study([*IN, f"seeds=[{seed}]"]) for seed in range(8)]
    threads = [threading.Thread(target=entered, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_study(Path("study")).seeds) == list(range(8))


def test_who_waits_too_long_is_told_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies_on_disk, "PATIENCE_S", 0.1)
    Path("study").mkdir()
    with owning(Path("study"), "reporting"), pytest.raises(FolderOwned, match="reporting"), writing_into(Path("study")):
        pass


def test_a_cell_says_who_plays_it() -> None:
    folder = Path("cell")
    assert player_of(folder) is None
    folder.mkdir()
    (folder / ".owner").write_text('{"host": "here", "pid": 1, "since": "", "doing": "training"}')  # of a killed one
    assert player_of(folder) is None
    with owning(folder, "training"):
        player = player_of(folder)
        assert player is not None and player.doing == "training"


def test_a_study_of_an_older_empg_grows_too() -> None:
    """Without `settings` in study.json definitions are known by the cells alone."""
    study = enter("seeds=1")
    cell = study.cells[0]
    finish(study, cell)
    content = json.loads(Path("study", STUDY_FILE).read_text())
    Path("study", STUDY_FILE).write_text(
        json.dumps({k: v for k, v in content.items() if k not in ("settings", "mixed")})
    )
    assert read_study(Path("study")).mixed == "refuse"
    with pytest.raises(ConfigError, match=r"dapo-s0: holds a run of another configuration: trainer.lr"):
        enter("seeds=2", "trainer.lr=0.25")
    assert [one.folder for one in enter("seeds=2").done()] == ["dapo-s0"]


def test_a_done_cell_stays_done_when_its_data_moves_and_when_the_schema_grows() -> None:
    for place in ("old", "new"):
        Path(place).mkdir()
    study = enter("seeds=1", "benchmark.data_dir=old")
    cell = study.cells[0]
    folder = finish(study, cell)
    moved = enter_unchecked("benchmark.data_dir=new")
    assert moved.cells[0].cell_hash != cell.cell_hash and moved.is_done(moved.cells[0])
    (folder / "summary.json").write_text('{"exit_code": 0, "cell_hash": "of an older schema"}')
    assert study.is_done(cell)
    (folder / "summary.json").write_text('{"exit_code": 143, "cell_hash": "of an older schema"}')
    assert not study.is_done(cell)
    (folder / "summary.json").write_text('{"exit_code": 0, "cell_hash": "of an older schema"}')
    assert study.other_settings(replace(cell, variant="dapo_empg")) is None  # no such run
    config.write(load(["algo=dapo_empg", "seed=3", "benchmark.data_dir=new"]), folder / "config.yaml")
    keys = study.other_settings(cell)
    assert keys and {"algo.name", "seed"} <= set(keys) and "benchmark.data_dir" not in keys and not study.is_done(cell)
    config.write(load([*cell.overrides, "benchmark.data_dir=new"]), folder / "config.yaml")
    assert study.is_done(cell)
    changes = [{"key": "trainer.updates", "before": 4, "after": 8, "update": 4}]
    (folder / "run.json").write_text(json.dumps({"changes": changes}))
    assert not study.is_done(cell)  # its learning rate had the schedule of a shorter run at first


def enter_unchecked(*words: str) -> Study:
    """Without a look at the data, which is not there in this test."""
    made = make_study(["run_dir=elsewhere", IN[1], "seeds=1", *words])
    return replace(made, folder=Path("study"))


def test_the_folder_of_a_study_is_found_again_after_its_data_moved() -> None:
    for place in ("old", "new"):
        Path(place).mkdir()
    generated, old, new = (
        make_study([IN[1], *words]).folder for words in ([], ["benchmark.data_dir=old"], ["benchmark.data_dir=new"])
    )
    assert old == new != generated
    assert generated.name == "alfworld-dapo_empg-tiny-d920af"  # as of commit bd2326b
    of_bd2326b = replace(make_study([IN[1], "run_dir=x"]), folder=Path("ablations/alfworld-dapo_empg-tiny-e3f47a"))
    write_study(of_bd2326b)  # its name was made with the place
    assert make_study([IN[1], "benchmark.data_dir=old"]).folder == of_bd2326b.folder
    assert make_study([IN[1], "benchmark.data_dir=new"]).folder == new


def test_digests_of_configurations_do_not_grow_with_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = load(["experiment=smoke"])
    assert config_hash(smoke) == "397a8fb174d3"  # as of commit bd2326b
    monkeypatch.setitem(run_format.ADDED, 4, (Added("trainer.new", 1), Added("algo.other.deep", "x")))
    values = smoke.model_dump()
    assert without_new_keys(values | {"trainer": values["trainer"] | {"new": 1}}) == without_new_keys(values)
    assert "new" in without_new_keys(values | {"trainer": values["trainer"] | {"new": 2}})["trainer"]


def test_a_study_goes_through_its_file() -> None:
    study = make_study([*IN, "ablation.mixed=mark"])
    write_study(study)
    assert read_study(study.folder) == study and study.mixed == "mark"
