"""The arms of the main comparison are those that did best in the tuning (scripts/why/main_arms.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from empg_cli.config import load
from empg_cli.runs.study import Study
from scripts.why.main_arms import arms_of, as_yaml, main_arms
from scripts.why.records import unpack
from scripts.why.tables import RECORDS
from tests.unit.studies.test_tuning import draws, finished, in_a_folder_of_its_own, made, measured, tuned

__all__ = ["finished", "in_a_folder_of_its_own", "tuned"]
ROOT = Path(__file__).parents[3]
TUNED = {"alfworld": "fair", "alfworld_1250": "fair-1250", "webshop": "fair-webshop", "deepsearch": "fair-deepsearch"}


def test_the_best_of_each_kind_is_taken_and_the_untuned_take_over_the_nearest(tuned: Study) -> None:
    """grpo-02 and empg-01 did best; grpo-02 has no entropy bonus, grpo-01 and -03 have one and are equal."""
    words = [list(draw) for draw in draws(3)]
    bonus = [draw[1] == "algo.loss.entropy_coef=0.5" for draw in words]
    assert bonus == [True, False, True]
    arms, base = main_arms(tuned.folder, "alfworld")
    assert base == "grpo"
    assert arms["grpo"] == ["algo=grpo", *words[1]]
    assert arms["grpo-entropy"] == ["algo=grpo", *words[0]]
    assert arms["empg"] == ["algo=empg", *words[0]]
    assert arms["permuted"] == [*arms["empg"], "algo.credit.control=permuted"]
    assert arms["dapo-empg"] == ["algo=dapo_empg", *words[0]]
    for name, algo in {"dapo": "dapo_kl", "hgpo": "hgpo", "graphgpo": "graphgpo"}.items():
        assert arms[name] == [f"algo={algo}", *words[1]]


def test_the_better_of_the_two_baselines_is_the_base_and_what_is_untuned_follows_it(tuned: Study) -> None:
    measured(tuned, "grpo-03", [0.9, 0.9])
    arms, base = main_arms(tuned.folder, "alfworld")
    words = [list(draw) for draw in draws(3)]
    assert base == "grpo-entropy"
    assert arms["grpo"] == ["algo=grpo", *words[1]]
    assert arms["grpo-entropy"] == ["algo=grpo", *words[2]]
    assert [arms[name][1:] for name in ("dapo", "hgpo", "graphgpo")] == [words[2]] * 3


def test_what_a_benchmark_asks_for_beside() -> None:
    """GraphGPO's constants, and on Deep Search the parts of EMPG apart."""
    plain, entropy, empg = ["lr=1"], ["lr=2"], ["algo.credit.zeta=0.1", "lr=3"]
    own, webshop, deepsearch = (
        arms_of(plain, entropy, plain, empg, name) for name in ("alfworld_1250", "webshop", "deepsearch")
    )
    assert own["graphgpo"] == ["algo=graphgpo", "lr=1"] and "scaling" not in own
    assert webshop == own | {"graphgpo": ["algo=graphgpo", "lr=1", "algo.advantage.decay=0.2"]}
    assert deepsearch == own | {
        "graphgpo": ["algo=graphgpo", "lr=1", "algo.advantage.goal=1.0"],
        "scaling": ["algo=empg", "lr=3", "algo.credit.zeta=0.0"],
        "bonus": ["algo=empg", "algo.credit.zeta=0.1", "lr=3", "algo.credit.k=0.0"],
    }
    goal, shipped = load(["experiment=deepsearch", *deepsearch["graphgpo"][::2]]), load(["experiment=deepsearch"])
    assert goal.algo.advantage.goal == shipped.benchmark.success_reward


def test_what_is_printed_is_a_study(tuned: Study, tmp_path: Path) -> None:
    arms, base = main_arms(tuned.folder, "alfworld")
    (tmp_path / "mine" / "ablation" / "main_smoke.yaml").write_text(as_yaml("smoke", arms, base))
    study = made("ablation=main_smoke", "experiment=smoke", "run_dir=main", "seeds=1")
    assert {cell.variant: list(cell.overrides) for cell in study.cells} == arms
    assert (study.base, study.metric) == ("grpo", "eval/success_rate")


@pytest.mark.parametrize("benchmark", TUNED)
def test_the_shipped_arms_are_those_of_the_record(benchmark: str, tmp_path: Path) -> None:
    path = ROOT / "conf" / "ablation" / f"main_{benchmark}.yaml"
    if not path.is_file():
        pytest.skip(f"the tuning on {benchmark} is not finished (docs/claims.md)")
    unpack(ROOT / RECORDS / f"{TUNED[benchmark]}.tar.xz", tmp_path / "tuning")
    arms, base = main_arms(tmp_path / "tuning", benchmark)
    assert yaml.safe_load(path.read_text())["variants"] == arms
    assert path.read_text() == as_yaml(benchmark, arms, base)
