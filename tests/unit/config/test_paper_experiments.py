"""The experiments of the paper compose to the numbers that its Tables 3 and 4 state, for every row of its results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from empg_cli.benchmarks.webshop.splits import split_goals
from empg_cli.config import load
from empg_cli.config.benchmarks import Webshop
from empg_cli.config.location import groups
from empg_cli.studies.plan import make_study

MODELS = {"1.5b": "qwen2.5-1.5b", "7b": "qwen2.5-7b", "llama3.1-8b": "llama3.1-8b"}


@pytest.mark.parametrize("algo", ["grpo", "empg", "dapo_kl", "dapo_empg"])
@pytest.mark.parametrize(("size", "benchmark"), [*((size, "alfworld") for size in MODELS), ("7b", "webshop")])
def test_the_rows_have_the_settings_of_table_3(size: str, algo: str, benchmark: str) -> None:
    experiment = f"paper_{size}" if benchmark == "alfworld" else f"paper_{size}_webshop"
    cfg = load([f"experiment={experiment}", f"algo={algo}"])
    assert cfg.benchmark.name == benchmark
    assert cfg.model.name == MODELS[size]
    assert (cfg.trainer.lr, cfg.trainer.updates, cfg.trainer.tasks_per_update) == (1e-6, 150, 16)
    assert (cfg.algo.group_size, cfg.algo.loss.kl_coef, cfg.algo.loss.entropy_coef) == (8, 0.01, 0.001)
    assert cfg.algo.loss.kl_estimator == "k3"
    assert cfg.algo.loss.kind == "clip"
    assert (cfg.algo.loss.clip_low, cfg.algo.loss.clip_high) == (0.2, 0.28 if algo.startswith("dapo") else 0.2)
    assert (cfg.rollout.temperature, cfg.rollout.context, cfg.rollout.history) == (1.0, "window", 2)
    assert cfg.benchmark.max_steps == {"alfworld": 50, "webshop": 15}[benchmark]
    assert cfg.benchmark.eval_tasks is None
    assert cfg.algo.overlong.kind == "none"
    # verl-agent's, where the paper says nothing
    assert (cfg.algo.loss.dual_clip, cfg.algo.loss.kl_clamp) == (3.0, 10.0)
    assert getattr(cfg.algo.advantage, "statistics", None) == "step"
    assert cfg.algo.advantage.penalty == "step"
    assert (cfg.benchmark.success_reward, cfg.benchmark.invalid_action_penalty) == (10.0, 0.1)


def test_deep_search_has_the_settings_of_table_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = make_study(["ablation=paper_table2", "experiment=paper_deepsearch", "seeds=3"])
    assert [cell.variant for cell in study.cells][:4] == ["dapo", "scaling", "bonus", "dapo_empg"]
    credits = {}
    for cell in study.cells[:4]:
        cfg = load(["experiment=paper_deepsearch", *cell.overrides])
        assert (cfg.benchmark.name, cfg.benchmark.max_steps, cfg.model.name) == ("deepsearch", 15, "qwen2.5-32b")
        assert (cfg.trainer.lr, cfg.trainer.updates, cfg.trainer.tasks_per_update) == (1e-6, 220, 64)
        assert (cfg.algo.group_size, cfg.algo.loss.kl_coef, cfg.algo.loss.entropy_coef) == (16, 0.001, 0.0)
        assert cfg.algo.loss.kl_estimator == "k3" and cfg.rollout.temperature == 1.0
        assert cfg.algo.loss.kind == "clip" and (cfg.algo.loss.clip_low, cfg.algo.loss.clip_high) == (0.2, 0.28)
        assert cfg.algo.advantage.penalty == "step"
        assert cfg.algo.sampling.drop_uniform_groups and cfg.algo.overlong.kind == "none"
        knobs = cfg.algo.credit.model_dump()
        credits[cell.variant] = tuple(knobs[key] for key in ("k", "k_future", "zeta", "center") if key in knobs)
    assert credits == {
        "dapo": (),
        "scaling": (1.0, 1.0, 0.0, True),
        "bonus": (0.0, 1.0, 0.1, True),
        "dapo_empg": (1.0, 1.0, 0.1, True),
    }


@pytest.mark.parametrize("benchmark", ["alfworld", "webshop"])
def test_table_6_is_the_grpo_half_of_table_1(benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"experiment=paper_llama3.1-8b{'' if benchmark == 'alfworld' else '_webshop'}", "seeds=1"]
    sixth = {cell.variant: cell.cell_hash for cell in make_study(["ablation=paper_table6", *words]).cells}
    first = {cell.variant: cell.cell_hash for cell in make_study(["ablation=paper_table1", *words]).cells}
    assert sixth == {name: first[name] for name in ("grpo", "empg")}


def test_every_experiment_of_the_paper_is_tested_here() -> None:
    shipped = {name for name in groups()["experiment"] if name.startswith("paper_")}
    tables = {f"paper_{size}{webshop}" for size in MODELS for webshop in ("", "_webshop")}
    assert shipped == tables | {"paper_deepsearch"}


@pytest.mark.parametrize("size", MODELS)
def test_webshop_trains_on_all_goals_but_the_test_split(size: str) -> None:
    """verl-agent: places 0 to 499 of the goals are its test split, all others train. The small set has 6,910 goals."""
    cfg = load([f"experiment=paper_{size}_webshop"])
    assert isinstance(cfg.benchmark, Webshop)
    assert cfg.model.name == MODELS[size]
    nothing = np.zeros(0, dtype=np.int64)
    goals = split_goals(cfg.benchmark.split_scheme, np.zeros(6910, dtype=np.int64), nothing)
    assert {split: len(indices) for split, indices in goals.items()} == {"train": 6410, "test": 500}
    assert (goals["train"][0], goals["test"][-1]) == (500, 499)


def test_tables_1_and_5_are_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = make_study(["ablation=paper_table1", "experiment=paper_1.5b", "seeds=3"])
    assert len(first.cells) == 12
    fifth = make_study(["ablation=paper_table5", "experiment=paper_1.5b", "seeds=4"])
    assert len(fifth.cells) == 20
    # The row that both tables share is the same configuration, as the paper's numbers suggest.
    shared = {cell.config_hash for cell in first.cells if cell.variant == "empg"}
    assert shared == {cell.config_hash for cell in fifth.cells if cell.variant == "zeta-0.05-k-1.0"}
