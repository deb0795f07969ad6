"""What a study consists of before anything runs: cells, digests, refusals, time and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.config.location import groups
from empg_cli.config.problems import ConfigError
from empg_cli.reports.plan_view import print_plan
from empg_cli.runs.facts import cell_hash
from empg_cli.runs.study import job_overrides, read_study, write_study
from empg_cli.stats.paired import pairs_needed
from empg_cli.studies.forecast import Wish, forecast
from empg_cli.studies.plan import make_study


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", groups()["ablation"])
def test_every_shipped_ablation_is_a_valid_study(name: str) -> None:
    study = make_study([f"ablation={name}", "seeds=2"])
    assert study.name == name
    assert study.base in study.variants
    assert len({cell.cell_hash for cell in study.cells}) == 2 * len(study.variants) == len(study.cells)


def test_components_differ_in_what_their_names_say() -> None:
    cells = {cell.variant: cell for cell in make_study(["seeds=1"]).cells}
    scaling, bonus = load(cells["scaling"].overrides).algo.credit, load(cells["bonus"].overrides).algo.credit
    full = load(["algo=empg"]).algo.credit
    assert scaling == full.model_copy(update={"zeta": 0.0})
    assert bonus == full.model_copy(update={"k": 0.0})
    assert load(cells["grpo"].overrides).algo.credit.kind == "none"


def test_a_cell_has_the_digest_of_the_run_it_becomes() -> None:
    study = make_study(["ablation=zeta", "seeds=[3]", "trainer.lr=1e-4"])
    for cell in study.cells:
        words = [word for word in job_overrides(study, cell, ["trainer.lr=1e-4"]) if not word.startswith("hydra")]
        assert cell_hash(load(words)) == cell.cell_hash


def test_the_same_settings_find_the_same_folder_and_others_do_not() -> None:
    folders = [make_study(words).folder for words in ([], ["seeds=9"], ["trainer.lr=1e-4"], ["logger.csv=false"])]
    assert folders[0] == folders[1] == folders[3] != folders[2]  # more seeds extend a study
    assert folders[0].name.startswith("alfworld-components-tiny-")
    assert make_study(["run_dir=mine"]).folder == Path("mine")


def test_seeds_come_in_whole_rows() -> None:
    study = make_study(["ablation=k", "seeds=[4,2]"])
    assert [(cell.variant, cell.seed) for cell in study.cells] == [
        (variant, seed) for seed in (4, 2) for variant in ("k-0.5", "k-1.0", "k-1.5")
    ]
    write_study(study)
    assert read_study(study.folder) == study


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["seed=3"], ["seed: is set by the study itself", "seeds=N"]),
        (["trainer.lr=1e-4,1e-5"], ["trainer.lr: has several values", "variants"]),
        (["algo=dapo"], ["algo: is set by the variant grpo too"]),
        (["seeds=0"], ["seeds"]),
        (["seeds=[1,1]"], ["seeds: must be distinct"]),
        (["ablation.base=nobody"], ["ablation.base: must be one of the variants"]),
        (["ablation.metric=eval/sucess_rate"], ["ablation.metric", "did you mean eval/success_rate?"]),
        (["ablation=zzz"], ["ablation: has no option 'zzz'", "components"]),
        (["trainer.upates=3", "benchmark.max_steps=0"], ["did you mean trainer.updates?", "benchmark.max_steps"]),
        (["algo.credit.zeta=0.1"], ["algo.credit.zeta", "in the variant: grpo"]),
        (['+ablation.variants.x=["algo.group_sze=1"]'], ["did you mean algo.group_size?", "in the variant: x"]),
        (['+ablation.variants.x=["seed=1"]'], ["seed: is set by the study itself"]),
    ],
)
def test_mistakes_are_found_before_any_folder_is_made(words: list[str], answers: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        make_study(words)
    for answer in answers:
        assert answer in str(raised.value)
    assert list(Path().iterdir()) == []


def test_another_study_in_the_folder_is_left_alone() -> None:
    study = make_study(["run_dir=mine", "seeds=1"])
    cell = study.cell_dir(study.cells[0])
    cell.mkdir(parents=True)
    (cell / "run.json").write_text(json.dumps({"config_hash": study.cells[0].config_hash, "seed": 0}))
    assert make_study(["run_dir=mine", "seeds=2"]).folder == Path("mine")
    with pytest.raises(ConfigError, match="another study"):
        make_study(["run_dir=mine", "seeds=2", "trainer.lr=1e-4"])


def test_seeds_needed() -> None:
    # n = 24: (t_.975 + t_.8 at 23 degrees: 2.069 + 0.858) * 0.05 / sqrt(24) = 0.0299 <= 0.03; n = 23 gives 0.0306.
    assert pairs_needed(0.03, 0.05) == 24
    assert pairs_needed(0.03, 0.0) == 2
    assert pairs_needed(0.03, 0.1) > 4 * pairs_needed(0.03, 0.05) - 10  # about quadratic in the sd
    with pytest.raises(ValueError, match="too small"):
        pairs_needed(1e-6, 1.0)


def test_time_is_estimated_from_runs_with_the_same_cost() -> None:
    from empg_cli import config

    study = make_study(["ablation=zeta", "seeds=2", "trainer.updates=10"])
    assert forecast(study, Wish(0.03)).seconds is None
    same, other = Path("runs/a/1"), Path("runs/a/2")
    for folder, words in ((same, ["trainer.updates=4"]), (other, ["benchmark.max_steps=7"])):
        folder.mkdir(parents=True)
        config.write(load(["algo=grpo", *words]), folder / "config.yaml")
        rows = [{"update": update, "perf/time_per_step": seconds} for update, seconds in enumerate([4.0, 1.5, 2.5])]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = forecast(study, Wish(0.03, sd=0.05), jobs=2)
    assert told.timed_runs == 1
    assert told.seconds_per_update == 4.0  # 8 s over 2 updates
    assert told.seconds == 4.0 * 6 * 10 / 2  # 6 cells of 10 updates, two at once
    assert [(need.seeds, need.source) for need in told.seeds_needed] == [(24, "given")]


def timed(folder: str, seconds: float, *words: str) -> None:
    """A run of two updates."""
    from empg_cli import config

    place = Path("runs/a") / folder
    place.mkdir(parents=True)
    config.write(load(["trainer.updates=2", *words]), place / "config.yaml")
    rows = [{"update": update, "perf/time_per_step": seconds} for update in (1, 2)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_time_is_unknown_while_one_variant_has_no_run_that_costs_as_much() -> None:
    Path("mine/ablation").mkdir(parents=True)
    variants = "{small: [algo=grpo, algo.group_size=2], large: [algo=grpo, algo.group_size=32]}"
    Path("mine/ablation/sizes.yaml").write_text(
        f"name: sizes\nmetric: eval/success_rate\nbase: small\nvariants: {variants}\n"
    )
    study = make_study(["ablation=sizes", "seeds=5", "trainer.updates=10"], config_dir=str(Path("mine").absolute()))
    wish = Wish(0.03, sd=0.05)
    assert forecast(study, wish).untimed == ("small", "large")
    timed("1", 0.2, "algo=grpo", "algo.group_size=2")
    told = forecast(study, wish)
    assert (told.seconds, told.untimed) == (None, ("large",))
    timed("2", 3.2, "algo=grpo", "algo.group_size=32")
    assert forecast(study, wish).seconds == pytest.approx(5 * (2 + 32))
    # five cells of 2 and five of 32 seconds in turns: of 9 jobs the first to be free, at 2, takes the last of 32
    assert forecast(study, wish, jobs=9).seconds == pytest.approx(2 + 32)
    assert forecast(study, wish, jobs=10).seconds == forecast(study, wish, jobs=99).seconds == pytest.approx(32)


def test_a_plan_of_what_is_done_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where no run of it costs what the settings would cost by now, such as after its data was moved."""
    study = make_study(["ablation=dapo_empg", "seeds=1", "run_dir=study"])
    write_study(study)
    for cell in study.cells:
        study.cell_dir(cell).mkdir(parents=True)
        (study.cell_dir(cell) / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    told = forecast(study, Wish(0.03, sd=0.05))
    assert (told.pending, told.untimed, told.timed_runs) == (0, (), 0)
    print_plan(study, told)
    assert "time: none, as all cells are done" in capsys.readouterr().out


def test_links_to_nowhere_and_files_among_the_runs_are_passed_over() -> None:
    study = make_study(["ablation=dapo_empg", "seeds=1"])
    timed("1", 1.0, "algo=dapo")
    Path("runs/a/latest").symlink_to("nowhere")
    Path("runs/a/.owner").write_text("")
    assert forecast(study, Wish(0.03, sd=0.05)).timed_runs == 1


def test_equal_differences_measure_no_spread() -> None:
    study = make_study(["ablation=dapo_empg", "seeds=3", "run_dir=study"])
    write_study(study)
    for cell in study.cells:
        folder = study.cell_dir(cell)
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(json.dumps({"update": 1, "eval/success_rate": 0.0, "eval/n": 50}) + "\n")
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    assert {need.source for need in forecast(study, Wish(0.1)).seeds_needed} == {"assumed"}


def test_variants_are_timed_by_runs_of_their_own_algorithm_where_there_are_any() -> None:
    from empg_cli import config

    study = make_study(["seeds=1", "trainer.updates=10"])  # grpo; scaling, bonus and empg are algo=empg
    for name, algo, seconds in (("1", "grpo", 1.0), ("2", "empg", 3.0), ("3", "empg", 5.0), ("4", "dapo", 100.0)):
        folder = Path("runs/a") / name
        folder.mkdir(parents=True)
        config.write(load([f"algo={algo}", "trainer.updates=2"]), folder / "config.yaml")
        rows = [{"update": update, "perf/time_per_step": seconds} for update in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = forecast(study, Wish(0.03, sd=0.05))
    assert told.timed_runs == 4
    assert told.seconds == 10 * (1.0 + 3 * 4.0)  # the median of 3 and 5 for the three with algo=empg


def test_the_sd_is_that_of_the_paired_differences_of_finished_runs() -> None:
    study = make_study(["ablation=dapo_empg", "seeds=4", "run_dir=study"])
    write_study(study)
    values = {"dapo": [0.5, 0.6, 0.4, 0.5], "dapo_empg": [0.6, 0.6, 0.5, 0.8]}
    for cell in study.cells:
        folder = study.cell_dir(cell)
        folder.mkdir(parents=True)
        row = {"update": 1, "eval/success_rate": values[cell.variant][cell.seed], "eval/n": 50}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    (need,) = forecast(study, Wish(0.1)).seeds_needed
    # differences 0.1, 0.0, 0.1, 0.3: mean 0.125, squares 0.000625 + 0.015625 + 0.000625 + 0.030625 = 0.0475, / 3
    assert need.sd == pytest.approx((0.0475 / 3) ** 0.5)
    assert need.source == "measured: dapo_empg - dapo, 4 seeds"
    assert need.seeds == pairs_needed(0.1, need.sd)
