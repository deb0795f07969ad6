"""Every file in conf/ composes, validates, and holds exactly the keys of the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from empg_cli.config import load, read, write
from empg_cli.config.keys import Choice, known_keys, presets, readers
from empg_cli.config.location import conf_dir, groups
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import EvalConfig, TrainConfig

OPTIONS = [
    (group, option)
    for group, options in groups().items()
    for option in options
    if group not in ("ablation", "endpoint")  # not of `empg train`: see test_ablation_plan, test_eval_settings
]
COIN = "benchmark.target=tests.support.outside:Coin"
EMPG_CREDIT = yaml.safe_load((conf_dir() / "algo" / "empg.yaml").read_text())["credit"]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_every_shipped_option_composes_and_validates(group: str, option: str) -> None:
    needed = {  # what they are named after
        ("model", "local"): ["model.path=owner/local"],
        ("benchmark", "custom"): [
            "benchmark.target=tests.support.outside:Coin",
            "benchmark.name=custom",
            "model=tiny-scratch",
        ],
    }
    cfg = load([f"{group}={option}", *needed.get((group, option), [])])
    assert isinstance(cfg, TrainConfig)
    if group in ("algo", "model", "benchmark"):
        assert getattr(cfg, group).name == option


@pytest.mark.parametrize("config_name", ["train", "eval"])
def test_primary_configs_hold_every_key_that_is_always_read(config_name: str) -> None:
    schema = {"train": TrainConfig, "eval": EvalConfig}[config_name]
    cfg = load([], config_name).model_dump()  # type: ignore[call-overload]
    # Keys below a null node (model.arch) and of choices not taken (algo.overlong.limit) are rightly absent.
    absent = [key for key in known_keys(schema) if not readers(schema, key) and not _is_there(cfg, key)]
    assert [key for key in absent if not key.startswith(("model.arch.", "endpoint."))] == []


def _is_there(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def test_a_bigger_model_brings_its_trainer_and_context_but_the_command_line_wins() -> None:
    chosen = load(["model=qwen2.5-1.5b"])
    assert (chosen.trainer.lr, chosen.rollout.context, chosen.rollout.history) == (1e-6, "window", 2)
    overruled = load(["model=qwen2.5-1.5b", "trainer=default", "rollout=transcript"])
    assert (overruled.trainer.lr, overruled.rollout.context) == (load([]).trainer.lr, "transcript")
    assert overruled.rollout.max_new_tokens > 10 * load([]).rollout.max_new_tokens  # it thinks; tiny does not


def test_the_kind_of_credit_can_be_switched_on_the_command_line() -> None:
    added = [f"+algo.credit.{key}={json.dumps(value)}" for key, value in EMPG_CREDIT.items() if key != "kind"]
    cfg, preset = load(["algo=grpo", "algo.credit.kind=empg", *added]), load(["algo=empg"])
    assert cfg.algo.model_copy(update={"name": "empg"}) == preset.algo


def test_experiment_files_may_set_any_key_and_the_command_line_wins() -> None:
    assert load(["experiment=smoke"]).trainer.updates == 2
    assert load(["experiment=smoke", "trainer.updates=7"]).trainer.updates == 7


def test_run_dir_names_benchmark_algorithm_model_and_seed() -> None:
    run_dir = load(["algo=grpo", "seed=7"]).run_dir
    assert run_dir.startswith("runs/alfworld-grpo-tiny/")
    assert run_dir.endswith("-s7")


def test_data_dir_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load([]).benchmark.data_dir is None
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert load([]).benchmark.data_dir == str(tmp_path)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load([]).trainer.lr = 1.0  # type: ignore[misc]


def test_written_config_reads_back_equal(tmp_path: Path) -> None:
    cfg = load(["algo=dapo", "trainer.lr=1e-7", "logger.wandb.tags=[a,b]"])
    write(cfg, tmp_path / "config.yaml")
    assert read(tmp_path / "config.yaml") == cfg


def test_compose_inside_a_hydra_job_leaves_hydra_as_it_was(tmp_path: Path) -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        load([])
        assert GlobalHydra.instance().hydra is outer


def test_presets_name_the_files_that_make_a_choice() -> None:
    ways = presets(Choice("algo.credit.kind", "empg"))
    assert {"algo=empg", "algo=dapo_empg"} <= set(ways)
    assert "algo=grpo" not in ways
    assert all(load([way]).algo.credit.kind == "empg" for way in ways)


def test_errors_survive_the_trip_home_from_a_worker() -> None:
    import pickle

    with pytest.raises(ConfigError) as caught:
        load(["trainer.lr=-1", "seed=-1"])
    home = pickle.loads(pickle.dumps(caught.value))
    assert str(home) == str(caught.value)
    assert len(home.problems) == 2
