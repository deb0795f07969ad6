"""A fair comparison: equal draws for every arm, winners by the mean, confirmed on seeds that chose nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from empg_cli import config
from empg_cli.config import load
from empg_cli.config.ablation import Tuning
from empg_cli.config.problems import ConfigError
from empg_cli.reports.ablation_tables import main_table
from empg_cli.runs.study import Study, read_study
from empg_cli.studies.comparison import compare
from empg_cli.studies.growth import entered
from empg_cli.studies.plan import make_study
from empg_cli.studies.tuning import drawn, winners

SPACE: dict[str, Any] = {"trainer.lr": [0.1, 0.2, 0.3], "algo.loss.entropy_coef": [0.0, 0.5]}
TUNE = ("ablation=small", "run_dir=tuning", "seeds=2", "experiment=smoke")
CONFIRM = ("ablation=small", "ablation.tuning=null", "ablation.confirms=tuning", "experiment=smoke", "run_dir=again")
GOOD = {"grpo": "grpo-02", "empg": "empg-01"}
"""What does best in the studies made here."""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "ablation").mkdir(parents=True)
    (tmp_path / "mine" / "ablation" / "small.yaml").write_text(
        "name: small\nmetric: eval/success_rate\nbase: grpo\nvariants: {grpo: [algo=grpo], empg: [algo=empg]}\n"
        f"tuning: {{draws: 3, seed: 0, space: {json.dumps(SPACE)}}}\n"
    )


def made(*words: str) -> Study:
    return make_study(words, config_dir=str(Path("mine").absolute()))


def tuned(*, but: int = 0) -> Study:
    """A finished study; all runs are at 0.5, the good ones at 0.6.

    Args:
        but: the last cells, which are left out.
    """
    study = entered(made(*TUNE))
    for cell in study.cells[: len(study.cells) - but]:
        folder = study.cell_dir(cell)
        folder.mkdir()
        config.write(load(["experiment=smoke", *cell.overrides, f"seed={cell.seed}"]), folder / "config.yaml")
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
        (folder / "run.json").write_text(json.dumps({"config_hash": cell.config_hash, "seed": cell.seed}))
        value = 0.6 + 0.01 * cell.seed if cell.variant in GOOD.values() else 0.5
        (folder / "metrics.jsonl").write_text(json.dumps({"update": 2, "eval/success_rate": value}) + "\n")
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


def test_values_are_written_as_hydra_reads_them() -> None:
    space: dict[str, Any] = {
        "algo.loss.kl_clamp": [None],
        "algo.credit.center": [True],
        "algo.advantage.statistics": ["step"],
    }
    assert drawn(Tuning(draws=1, seed=0, space=space)) == [
        ("algo.loss.kl_clamp=null", "algo.credit.center=true", "algo.advantage.statistics=step")
    ]


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
    assert study.named(["empg"]) == ["empg-00", "empg-01", "empg-02", "empg-03"]


def test_a_key_that_the_command_line_gives_is_not_drawn_too() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.lr: is set by the variant"):
        made(*TUNE, "trainer.lr=0.7")


def test_the_tables_of_draws_say_what_they_are() -> None:
    found = compare(tuned())
    assert found is not None
    assert any(text.startswith("TUNING:") for text in main_table(found).warnings)


# --- winners ---------------------------------------------------------------------------------------------


def test_the_highest_mean_of_each_arm_wins() -> None:
    tuned()
    _, best = winners(Path("tuning"))
    assert {arm: winner.variant for arm, winner in best.items()} == GOOD
    assert best["grpo"].mean == pytest.approx((0.60 + 0.61) / 2)
    assert best["grpo"].overrides == ("algo=grpo", *draws(3)[1])


def test_among_equals_the_first_drawn_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.test_tuning.GOOD", {})
    tuned()
    assert {winner.variant for winner in winners(Path("tuning"))[1].values()} == {"grpo-00", "empg-00"}


def test_a_study_that_is_not_finished_has_no_winners() -> None:
    tuned(but=1)
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
def test_what_cannot_be_confirmed_is_refused(words: list[str], answer: str) -> None:
    tuned()
    with pytest.raises(ConfigError) as caught:
        made(*[word for word in CONFIRM if word.split("=")[0] != words[0].split("=")[0]], *words)
    assert answer in str(caught.value)


def test_a_study_without_draws_has_no_winners() -> None:
    entered(make_study(["ablation=dapo_empg", "run_dir=plain", "experiment=smoke"]))
    with pytest.raises(ConfigError, match="tunes nothing"):
        made(*CONFIRM[:2], "ablation.confirms=plain", "experiment=smoke")


# --- confirmation ----------------------------------------------------------------------------------------


def test_winners_are_played_on_seeds_that_tuned_nothing() -> None:
    tuned()
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
    assert study.confirms["draws"] == {"grpo": 4, "empg": 4}
    assert study.confirms["winners"]["empg"]["variant"] == "empg-01"


def played(study: Study) -> list[str]:
    for cell in study.cells:
        folder = study.cell_dir(cell)
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
        (folder / "run.json").write_text("{}")
        (folder / "metrics.jsonl").write_text(json.dumps({"update": 2, "eval/success_rate": 0.5}) + "\n")
    found = compare(read_study(study.folder))
    assert found is not None
    table = main_table(found)
    return [*table.warnings, *table.notes]


def test_the_table_says_where_settings_come_from_and_nothing_else() -> None:
    tuned()
    told = played(entered(made(*CONFIRM, "seeds=2")))
    assert not [text for text in told if "TUNED ON" in text or "BUDGETS" in text or "TUNING" in text]
    (tuned_in,) = [
        text for text in told if text.startswith("Settings tuned in tuning on eval/success_rate, seeds 0, 1")
    ]
    assert f"grpo = grpo-02 (algo=grpo {' '.join(draws(3)[1])}), 0.605 there" in tuned_in


def test_a_table_over_seeds_that_tuned_says_so() -> None:
    tuned()
    told = played(entered(made(*CONFIRM, "seeds=[1,2]")))
    assert any(text.startswith("TUNED ON THESE SEEDS: 1 have chosen") for text in told)


def test_a_table_over_unequal_budgets_says_so() -> None:
    words = ["ablation=dapo_empg", "run_dir=unequal", "experiment=smoke", "seeds=2"]
    study = make_study([*words, '+ablation.variants.long=["algo=dapo","trainer.updates=6"]'])
    one = study.facts["dapo"]["episodes"]
    told = played(entered(study))
    assert any(f"UNEQUAL BUDGETS: variants train on {one:,} to {3 * one:,} episodes" in text for text in told)
