"""What a run is cannot change when it goes on: every key of the configuration has its rule."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from empg_cli.config.keys import known_keys
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.observer import Observer
from empg_cli.observe.sinks import Fan
from empg_cli.ranks import ALONE
from empg_cli.runs.facts import cell_hash, config_hash, note_hardware, processor
from empg_cli.runs.folder import OpenFolder
from empg_cli.runs.identity import RULES, Change, Rule, bends_of, differences, other_data, rule_of
from empg_cli.runs.run_file import read_run_file, update_run_file
from tests.support.tiny import tiny_config

WHOLE_SECTIONS = {
    "model",
    "benchmark",
    "algo",
    "trainer.warm_start",
    "trainer.health",
    "rollout.vllm",
    "logger",
    "dist",
}
"""Below these a new key gets the rule of its section; elsewhere somebody has to think about it."""


@pytest.fixture(scope="module")
def base() -> TrainConfig:
    return tiny_config()


def other(cfg: TrainConfig, key: str, value: object) -> TrainConfig:
    """The same with one other value."""
    values = cfg.model_dump()
    node: Any = values
    *above, name = key.split(".")
    for part in above:
        node = node[part]
    node[name] = value
    return TrainConfig.model_validate(values)


def test_every_key_has_a_rule() -> None:
    keys = [key for key in known_keys(TrainConfig) if key not in ("trainer", "rollout")]
    assert [key for key in keys if not isinstance(rule_of(key), Rule)] == []
    for key in keys:
        is_covered = any(key == section or key.startswith(f"{section}.") for section in WHOLE_SECTIONS)
        assert is_covered or key in RULES, f"say in runs/identity.py whether {key} may change when a run goes on"


def test_every_rule_is_of_a_key() -> None:
    assert set(RULES) - set(known_keys(TrainConfig)) == set()


def test_a_key_that_nobody_knows_has_no_rule() -> None:
    with pytest.raises(KeyError):
        rule_of("trainer.new")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7), ("rollout.temperature", 0.5), ("rollout.eval_temperature", 0.1), ("rollout.max_new_tokens", 6),
        ("model.arch.num_layers", 1), ("model.dtype", "bfloat16"), ("algo.credit.k", 2.0), ("algo.group_size", 2),
        ("trainer.lr", 1e-9), ("trainer.minibatches", 1), ("trainer.tasks_per_update", 3),
        ("trainer.warm_start.steps", 1), ("benchmark.game_seed", 9), ("benchmark.max_steps", 7),
        ("benchmark.eval_tasks", 1), ("benchmark.split", "valid_unseen"),
    ],
)  # fmt: skip
def test_what_defines_a_run_stays(key: str, value: object, base: TrainConfig) -> None:
    problems, _ = differences(base.model_dump(), other(base, key, value), done=1)
    assert [problem.key for problem in problems] == [key]


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("rollout.max_concurrent", 0, 3), ("model.gradient_checkpointing", False, True), ("trainer.threads", 1, 2),
        ("trainer.keep_checkpoints", 2, 7), ("trainer.checkpoint_every", 10, 3), ("trainer.eval_every", 10, 3),
        ("trainer.tokens_per_microbatch", 4096, 99), ("trainer.updates", 40, 50), ("trainer.updates", 40, 8),
        ("trainer.health.warn", True, False), ("benchmark.data_dir", None, "there"),
    ],
)  # fmt: skip
def test_how_it_is_carried_out_may_change_and_is_noted(
    key: str, before: object, after: object, base: TrainConfig
) -> None:
    problems, changes = differences(base.model_dump(), other(base, key, after), done=8)
    assert problems == []
    assert changes == [Change(8, key, before, after)]
    assert str(changes[0]) == f"{key}: {before} until update 8, {after} from there on"


def test_what_is_shown_and_where_a_run_lies_is_not_noted(base: TrainConfig) -> None:
    for key, value in (("logger.console", "plain"), ("run_dir", "elsewhere"), ("resume", "auto")):
        assert differences(base.model_dump(), other(base, key, value), done=1) == ([], [])


def test_fewer_updates_than_are_done_are_refused(base: TrainConfig) -> None:
    problems, _ = differences(base.model_dump(), other(base, "trainer.updates", 8), done=9)
    assert [(problem.key, problem.got) for problem in problems] == [("trainer.updates", "8")]
    assert "9 updates behind it: ask for 9 or more" in (problems[0].hint or "")


def test_data_is_told_apart_by_its_contents() -> None:
    trained = {"name": "alfworld", "source": "generated", "digest": "one", "retrieval": {"digest": "x"}}
    assert other_data(trained, dict(trained)) is None
    assert other_data(trained, {**trained, "digest": "two"}) == "digest one, now two"
    assert other_data(trained, {**trained, "source": "official"}) == "source generated, now official"
    assert other_data(trained, {**trained, "retrieval": {"digest": "y"}}) == "index x, now y"
    assert other_data({"name": "alfworld"}, trained) is None, "nothing is known of the earlier contents"


def test_a_bent_schedule_is_no_run_of_one_length(base: TrainConfig) -> None:
    change = {"update": 3, "key": "trainer.updates", "before": 40, "after": 50}
    linear, constant = other(base, "trainer.lr_schedule", "linear"), other(base, "trainer.lr_schedule", "constant")
    assert bends_of(linear, [change, {**change, "key": "trainer.threads"}]) == [(3, 40)]
    assert bends_of(constant, [change]) == []
    assert config_hash(linear, [(3, 40)]) != config_hash(linear) == config_hash(linear, [])
    assert cell_hash(linear, [(3, 40)]) != cell_hash(linear)


@pytest.mark.parametrize(
    ("init", "steps", "is_refused"),
    [("packaged", 0, True), ("pretrained", 0, True), ("scratch", 0, False), ("pretrained", 3, False)],
)
def test_a_run_goes_on_from_the_weights_it_began_with(
    init: str, steps: int, is_refused: bool, base: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights that are made by computing may be rounded otherwise on another machine."""
    warm_start = base.trainer.warm_start.model_copy(update={"steps": steps})
    cfg = base.model_copy(
        update={
            "model": base.model.model_copy(update={"init": init}),
            "trainer": base.trainer.model_copy(update={"warm_start": warm_start}),
        }
    )
    update_run_file(tmp_path, model={"digest": "one"})
    folder = OpenFolder(tmp_path, tmp_path, 1, "generated", ("look",), date(2026, 1, 1))
    observer = Observer(cfg, folder, Fan(), Dashboard("quiet", "", 4, done=1), {})
    observer.record_policy({"digest": "one"})
    assert caplog.text == ""
    if is_refused:
        with pytest.raises(UserError, match="the run began with: digest one, now two; give the weights"):
            observer.record_policy({"digest": "two"})
    else:
        observer.record_policy({"digest": "two"})
        assert "digest one, now two: made anew, it was rounded differently" in caplog.text
    assert read_run_file(tmp_path)["model"] == {"digest": "one"}


def test_a_warm_start_of_other_weights_is_refused_and_nothing_is_noted(tmp_path: Path) -> None:
    """What comes out of a warm start is rounded by the machine; what goes in is not."""
    from empg_cli.benchmarks import make_benchmark
    from empg_cli.experiment import initial_policy

    cfg = tiny_config("trainer.warm_start.steps=1", model=["model=tiny"])
    folder = OpenFolder(tmp_path, tmp_path, 1, "generated", ("look",), date(2026, 1, 1))
    observer = Observer(cfg, folder, Fan(), Dashboard("quiet", "", 4, done=1), {})
    update_run_file(tmp_path, weights="others")
    with pytest.raises(UserError, match=r"the run began with: digest others, now .*; give the weights"):
        initial_policy(cfg, make_benchmark(**cfg.benchmark.model_dump()), folder, observer, ALONE)
    assert read_run_file(tmp_path)["weights"] == "others"


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 207\nmodel name\t: Xeon(R) 9: fast\n\nmodel name\t: other\n")
    assert processor(cpuinfo) == "Xeon(R) 9: fast"
    assert processor(tmp_path / "absent")  # what Python knows, on other systems


def test_every_machine_that_a_run_was_computed_on_is_named_once(tmp_path: Path) -> None:
    for name in ("Xeon 9", "H100", "Xeon 9"):
        note_hardware(tmp_path, name)
    assert read_run_file(tmp_path)["hardware"] == ["Xeon 9", "H100"]
