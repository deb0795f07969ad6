"""A fair comparison: equal draws for every arm, winners by the mean, confirmed on seeds that chose nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import ValidationError

from empg_cli import config
from empg_cli.config import load
from empg_cli.config.ablation import Tuning
from empg_cli.config.location import conf_dir
from empg_cli.config.problems import ConfigError
from empg_cli.reports.ablation_tables import main_table
from empg_cli.reports.across_tables import across_table
from empg_cli.runs.study import Study, read_study
from empg_cli.studies.across import compare_across
from empg_cli.studies.comparison import compare
from empg_cli.studies.fairness import share_tasks
from empg_cli.studies.growth import entered
from empg_cli.studies.plan import make_study
from empg_cli.studies.preregistration import read_plan
from empg_cli.studies.tuning import drawn, names_of_draws, winners

SPACE: dict[str, Any] = {"trainer.lr": [0.1, 0.2, 0.3], "algo.loss.entropy_coef": [0.0, 0.5]}
TUNE = ("ablation=small", "run_dir=tuning", "seeds=2", "experiment=smoke")
CONFIRM = ("ablation=small", "ablation.tuning=null", "ablation.confirms=tuning", "experiment=smoke", "run_dir=again")
UNSEEN = "benchmark.split=valid_unseen"
GOOD = {"grpo": "grpo-02", "empg": "empg-01"}
"""What does best in the studies made here."""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_ablation()


def write_ablation() -> None:
    folder = Path("mine") / "ablation"
    folder.mkdir(parents=True)
    (folder / "small.yaml").write_text(
        "name: small\nmetric: eval/success_rate\nbase: grpo\nvariants: {grpo: [algo=grpo], empg: [algo=empg]}\n"
        f"tuning: {{draws: 3, seed: 0, space: {json.dumps(SPACE)}}}\n"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the folder `tuning` of `play_tuning()`, which takes seconds to compose."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_ablation()
        play_tuning()
    return folder


@pytest.fixture
def tuned(finished: Path) -> Study:
    """A finished study in the folder `tuning`."""
    shutil.copytree(finished / "tuning", "tuning")
    return read_study(Path("tuning"))


def made(*words: str) -> Study:
    return make_study(words, config_dir=str(Path("mine").absolute()))


def play_tuning(*words: str, finish_all: bool = False) -> Study:
    """A finished study; all runs are at 0.5, the good ones at 0.6.

    Args:
        finish_all: cells that are there already stay.
    """
    keys = {word.split("=")[0] for word in words}
    study = entered(made(*(word for word in TUNE if word.split("=")[0] not in keys), *words))
    for cell in study.cells:
        folder = study.cell_dir(cell)
        if finish_all and folder.exists():
            continue
        folder.mkdir()
        config.write(load(["experiment=smoke", *cell.overrides, f"seed={cell.seed}"]), folder / "config.yaml")
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
        (folder / "run.json").write_text(json.dumps({"config_hash": cell.config_hash, "seed": cell.seed}))
        value = 0.6 + 0.01 * cell.seed if cell.variant in GOOD.values() else 0.5
        row = {"update": 2, "eval/success_rate": value, "eval/length/mean": value}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return study


def draws(number: int, seed: int = 0) -> list[tuple[str, ...]]:
    return drawn(Tuning(draws=number, seed=seed, space=SPACE))


# --- draws -----------------------------------------------------------------------------------------------


def test_every_setting_is_drawn_once_and_more_draws_keep_those_of_before() -> None:
    everything = draws(6)
    assert sorted(everything) == sorted(
        (f"trainer.lr={lr}", f"algo.loss.entropy_coef={bonus}") for lr in SPACE["trainer.lr"] for bonus in (0.0, 0.5)
    )
    for number in range(1, 6):
        assert draws(number) == everything[:number]
    assert len({tuple(draws(6, seed)) for seed in range(20)}) > 10


def test_values_of_a_key_take_turns() -> None:
    for seed in range(20):
        found = drawn(Tuning(draws=12, seed=seed, space={"a": [1, 2, 3], "b": [1, 2], "c": list(range(8))}))
        for key, times in (("a", 4), ("b", 6)):
            counts = Counter(word for draw in found for word in draw if word.startswith(f"{key}="))
            assert max(counts.values()) - min(counts.values()) <= 2, counts  # repeats are drawn anew
            assert sum(counts.values()) == 12 and abs(min(counts.values()) - times) <= 1


def test_the_shipped_draws_are_balanced() -> None:
    """Neither arm's usual settings are searched oftener than the other's."""
    tuning = Tuning(**yaml.safe_load((conf_dir() / "ablation" / "fair.yaml").read_text())["tuning"])
    found = drawn(tuning)
    assert set(Counter(draw[2:] for draw in found).values()) == {4}
    assert set(Counter(draw[0] for draw in found).values()) == {4}
    assert set(Counter(draw[1] for draw in found).values()) == {3, 4}


def test_values_are_written_as_hydra_reads_them() -> None:
    values = [None, True, False, 0, 1, 0.0, 1e-05, "step", "null", "1,2", "it's", "a b"]
    for value in values:
        ((word,),) = drawn(Tuning(draws=1, seed=0, space={"algo.name": [value]}))
        overrides = OverridesParser.create().parse_overrides([word])
        read = overrides[0].value()
        assert (type(read), read) == (type(value), value) or read == value == str(read), word
        assert not overrides[0].is_sweep_override()


def test_a_value_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="each value of a once"):
        Tuning(draws=1, seed=0, space={"a": [0.1, 0.1]})
    Tuning(draws=1, seed=0, space={"a": [0, False]})


def test_more_draws_than_there_are_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be at most 6"):
        made(*TUNE, "ablation.tuning.draws=7")


def test_every_arm_is_played_as_it_is_and_with_the_same_draws() -> None:
    study = made(*TUNE)
    words = {cell.variant: cell.overrides for cell in study.cells}
    assert list(words) == [f"{arm}-0{number}" for number in range(4) for arm in ("grpo", "empg")]
    assert (words["grpo-00"], words["empg-00"]) == (("algo=grpo",), ("algo=empg",))
    for number, draw in enumerate(draws(3), start=1):
        assert words[f"grpo-0{number}"][1:] == words[f"empg-0{number}"][1:] == draw
    assert study.base == "grpo-00"
    assert study.arms["empg-02"] == "empg"


def test_a_key_that_the_command_line_gives_is_not_drawn_too() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.lr: is set by the variant"):
        made(*TUNE, "trainer.lr=0.7")


def test_the_tables_of_draws_say_what_they_are(tuned: Study) -> None:
    found = compare(tuned)
    assert found is not None
    assert any(text.startswith("TUNING:") for text in main_table(found).warnings)


# --- winners ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tuned")
def test_the_highest_mean_of_each_arm_wins() -> None:
    _, best = winners(Path("tuning"))
    assert {arm: winner.variant for arm, winner in best.items()} == GOOD
    assert best["grpo"].mean == pytest.approx((0.60 + 0.61) / 2)
    assert best["grpo"].overrides == ("algo=grpo", *draws(3)[1])


def test_among_equals_the_first_drawn_wins(tuned: Study) -> None:
    for variant in GOOD.values():
        measured(tuned, variant, [0.5, 0.5])
    assert {winner.variant for winner in winners(Path("tuning"))[1].values()} == {"grpo-00", "empg-00"}


def measured(study: Study, variant: str, values: Sequence[float]) -> None:
    for seed, value in enumerate(values):
        path = study.folder / f"{variant}-s{seed}" / "metrics.jsonl"
        path.write_text(json.dumps({"update": 2, "eval/success_rate": value}) + "\n")


def test_equal_means_are_equal_in_any_order_of_the_seeds() -> None:
    study = play_tuning("seeds=3")
    measured(study, "grpo-01", [0.7, 0.8, 0.9])
    measured(study, "grpo-02", [0.9, 0.7, 0.8])
    assert winners(Path("tuning"))[1]["grpo"].variant == "grpo-01"


def test_arms_with_unequal_draws_have_no_winners() -> None:
    play_tuning("~ablation.variants.grpo", "ablation.base=empg")
    play_tuning("ablation.tuning.draws=2", "ablation.base=empg", finish_all=True)
    with pytest.raises(ConfigError, match="tuned empg with 4 settings and grpo with 3"):
        winners(Path("tuning"))


def test_a_metric_that_should_be_low_chooses_no_winners() -> None:
    play_tuning("ablation.metric=eval/length/mean")
    with pytest.raises(ConfigError, match="whose highest value need not be the best"):
        winners(Path("tuning"))


@pytest.mark.usefixtures("tuned")
def test_another_metric_is_not_confirmed_and_has_its_tables_when_all_cells_are_done() -> None:
    other = (*CONFIRM, UNSEEN, "ablation.metric=eval/score")
    with pytest.raises(ConfigError, match=r"has chosen by eval/success_rate, and eval/score is compared"):
        made(*other)
    played(entered(made(*CONFIRM, UNSEEN, "seeds=2")))
    assert entered(made(*other, "seeds=2")).metric == "eval/score"
    with pytest.raises(ConfigError, match=r"ablation.confirms: has chosen by eval/success_rate"):
        made(*other, "seeds=3")  # a new cell is played to be compared by it


@pytest.mark.usefixtures("tuned")
def test_other_tables_of_the_tuning_change_nothing_in_its_confirmation() -> None:
    first = entered(made(*CONFIRM, UNSEEN, "seeds=2"))
    planned = Path("again/plan.json").read_bytes()
    for metric in ("eval/length/mean", "eval/success_rate"):
        entered(made(*TUNE, f"ablation.metric={metric}"))
    assert "metric eval/length/mean" in str(read_plan(Path("tuning")))
    assert entered(made(*CONFIRM, UNSEEN, "seeds=2")).confirms == first.confirms
    assert Path("again/plan.json").read_bytes() == planned


def test_another_tuning_in_a_folder_of_that_name_is_told_by_what_differs(tuned: Study) -> None:
    entered(made(*CONFIRM, UNSEEN, "seeds=2"))
    measured(tuned, "grpo-00", [0.9, 0.9])
    with pytest.raises(ConfigError, match=r"ablation.confirms: is tuning there \(got tuning with other winners\)"):
        made(*CONFIRM, UNSEEN, "seeds=2")


def test_a_study_that_is_not_finished_has_no_winners(tuned: Study) -> None:
    shutil.rmtree(tuned.folder / "empg-03-s1")
    with pytest.raises(ConfigError, match=r"not finished: 1 of 16 cells are left, empg-03-s1 the first"):
        made(*CONFIRM)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["ablation.confirms=nowhere"], "study.json is not there"),
        (["ablation.tuning={draws:1,seed:0,space:{trainer.lr:[0.1]}}"], "must be null beside confirms"),
        (['+ablation.variants.dapo=["algo=dapo"]'], "did not tune dapo (got tuning); it has grpo, empg"),
        (["trainer.updates=9"], "trainer.updates: was 2 where it was tuned (got 9)"),
        (["benchmark.max_steps=9"], "benchmark.max_steps: was"),
    ],
)
@pytest.mark.usefixtures("tuned")
def test_what_cannot_be_confirmed_is_refused(words: list[str], answer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(*[word for word in CONFIRM if word.split("=")[0] != words[0].split("=")[0]], *words)
    assert answer in str(caught.value)


def test_a_study_without_draws_has_no_winners() -> None:
    entered(make_study(["ablation=dapo_empg", "run_dir=plain", "experiment=smoke"]))
    with pytest.raises(ConfigError, match="tunes nothing"):
        made(*CONFIRM[:2], "ablation.confirms=plain", "experiment=smoke")


# --- confirmation ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tuned")
def test_winners_are_played_on_seeds_that_tuned_nothing() -> None:
    study = made(*CONFIRM, "seeds=3", "benchmark.split=valid_unseen", "benchmark.eval_tasks=7", "trainer.eval_every=0")
    assert study.name == "small-confirmed"
    assert study.seeds == (2, 3, 4)
    assert study.base == "grpo"
    assert {cell.variant: cell.overrides for cell in study.cells} == {
        "grpo": ("algo=grpo", *draws(3)[1]),
        "empg": ("algo=empg", *draws(3)[0]),
    }
    assert study.confirms is not None
    assert study.confirms["seeds"] == [0, 1]
    assert study.confirms["draws"] == 4
    assert study.confirms["plan"] == str(read_plan(Path("tuning")))
    assert study.confirms["winners"]["empg"]["variant"] == "empg-01"


def played(study: Study, episodes: dict[str, int] | None = None) -> list[str]:
    for cell in study.cells:
        folder = study.cell_dir(cell)
        folder.mkdir(exist_ok=True)
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
        (folder / "run.json").write_text("{}")
        row = {"update": 2, "eval/success_rate": 0.5, "env/episodes": (episodes or {}).get(cell.variant, 64)}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    found = compare(read_study(study.folder))
    assert found is not None
    table = main_table(found)
    return [*table.warnings, *table.notes]


def warned(told: list[str]) -> list[str]:
    return [text.partition(":")[0] for text in told if text.partition(":")[0].isupper()]


@pytest.mark.usefixtures("tuned")
def test_the_table_says_where_settings_come_from_and_nothing_else() -> None:
    told = played(entered(made(*CONFIRM, UNSEEN, "seeds=2")))
    assert warned(told) == []
    (tuned_in,) = [
        text for text in told if text.startswith("Settings tuned in tuning by eval/success_rate, 4 settings")
    ]
    assert f"grpo = grpo-02 (algo=grpo {' '.join(draws(3)[1])}), 0.605 there" in tuned_in
    assert f"seeds 0, 1 (plan: {read_plan(Path('tuning'))})" in tuned_in


@pytest.mark.usefixtures("tuned")
def test_a_table_over_seeds_that_tuned_says_so() -> None:
    told = played(entered(made(*CONFIRM, UNSEEN, "seeds=[1,2]")))
    assert warned(told) == ["TUNED ON THESE SEEDS"]
    assert any(text.startswith("TUNED ON THESE SEEDS: 1 have chosen") for text in told)


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize("eval_tasks", ["4", "3", "5", "null"])
def test_a_table_over_tasks_that_tuned_says_so(eval_tasks: str) -> None:
    """The smoke test's 4 tasks are the first of their split, so fewer and more of them share some."""
    study = entered(made(*CONFIRM, "seeds=2", f"benchmark.eval_tasks={eval_tasks}"))
    assert warned(played(study)) == ["TUNED ON THESE TASKS"]


@pytest.mark.parametrize(
    ("tuned_on", "played_on", "is_told"),
    [
        ("id", "test", True),
        ("test", "id", True),
        ("ood_depth3", "ood", True),
        ("ood_depth3", "test", True),
        ("id", "ood", False),
        ("ood_depth3", "ood_depth4", False),
        ("train", "test", False),
    ],
)
def test_splits_that_hold_each_other_share_tasks(tuned_on: str, played_on: str, *, is_told: bool) -> None:
    data = {"name": "deepsearch", "digest": "d"}
    tuned, played = ({"split": split, "eval_tasks": 10, "data": data} for split in (tuned_on, played_on))
    assert share_tasks(tuned, played) is is_told
    assert not share_tasks(tuned, played | {"data": data | {"digest": "of another world"}})
    elsewhere = {"name": "of somebody", "digest": "d"}
    assert not share_tasks(tuned | {"data": elsewhere}, played | {"data": elsewhere})


@pytest.mark.parametrize(("splits", "is_told"), [(("dev", "id", "ood"), True), (("test", "dev", "id", "ood"), False)])
def test_parts_of_official_data_without_a_test_split_are_of_dev(splits: tuple[str, ...], *, is_told: bool) -> None:
    data = {"name": "deepsearch", "digest": "d", "tasks": dict.fromkeys(splits, 9)}
    tuned, played = ({"split": split, "eval_tasks": None, "data": data} for split in ("dev", "id"))
    assert share_tasks(tuned, played) is is_told


def test_a_table_over_unequal_budgets_says_so() -> None:
    words = ["ablation=dapo_empg", "run_dir=unequal", "experiment=smoke", "seeds=2"]
    told = played(entered(make_study(words)), {"dapo": 64, "dapo_empg": 80})
    assert warned(told) == ["UNEQUAL BUDGETS"]
    assert any("on average: dapo 64, dapo_empg 80." in text for text in told)


def test_what_tables_over_several_studies_know_of_one_they_say() -> None:
    for folder in ("one", "two"):
        study = entered(make_study(["ablation=dapo_empg", f"run_dir={folder}", "experiment=smoke", "seeds=2"]))
        played(study, {"dapo": 64, "dapo_empg": 80})
    found = across_table(compare_across([Path("one"), Path("two")]))
    assert [text for text in found.warnings if text.startswith("one: UNEQUAL BUDGETS")]


@pytest.mark.usefixtures("tuned")
def test_a_confirmation_keeps_where_its_settings_come_from() -> None:
    first = entered(made(*CONFIRM, UNSEEN, "seeds=2"))
    plain = [
        f"+ablation.variants.{arm}={json.dumps(list(first.confirms['winners'][arm]['overrides']))}"  # type: ignore[index]
        for arm in ("grpo", "empg")
    ]
    with pytest.raises(ConfigError, match=r"ablation.confirms: is tuning there \(got null\)"):
        entered(
            made(
                "ablation=small",
                "ablation.tuning=null",
                "ablation.name=small-confirmed",
                UNSEEN,
                "experiment=smoke",
                "run_dir=again",
                "seeds=[0]",
                *(word.removeprefix("+") for word in plain),
            )
        )
    assert entered(made(*CONFIRM, UNSEEN, "seeds=3")).confirms == first.confirms


@pytest.mark.usefixtures("tuned")
def test_the_study_that_tuned_may_be_moved() -> None:
    first = entered(made(*CONFIRM, UNSEEN, "seeds=2"))
    before = Path("again/plan.json").read_bytes()
    Path("tuning").rename("elsewhere")
    moved = [word.replace("=tuning", "=elsewhere") for word in CONFIRM]
    assert entered(made(*moved, UNSEEN, "seeds=2")).confirms == first.confirms
    assert Path("again/plan.json").read_bytes() == before


def test_a_command_plays_the_draws_that_it_asks_for() -> None:
    more = made(*TUNE, "ablation.tuning.draws=3")
    fewer = Tuning(draws=1, seed=0, space=SPACE)
    assert names_of_draws(["grpo", "empg"], fewer) == ["grpo-00", "empg-00", "grpo-01", "empg-01"]
    assert [cell.folder for cell in more.part(names_of_draws(["grpo", "empg"], fewer), [1])] == [
        "grpo-00-s1", "empg-00-s1", "grpo-01-s1", "empg-01-s1",
    ]  # fmt: skip
