"""Run folders of every format are read as configurations of today, and those of tomorrow are refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from pydantic import BaseModel

from empg_cli import config
from empg_cli.config.keys import readers
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.errors import DataError, UserError
from empg_cli.evaluation.run_eval import compare_with_training
from empg_cli.runs.checkpoint import TrainState, write_checkpoint
from empg_cli.runs.config_file import saved_config, saved_values
from empg_cli.runs.folder import OpenFolder, open_folder
from empg_cli.runs.format import ADDED, FORMAT, FromTheFuture, Like, lookup, migrated
from empg_cli.runs.own_config import primary_config
from empg_cli.runs.run_file import read_run_file, update_run_file
from tests.support.schema_keys import schema_keys
from tests.support.tiny import tiny_config

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
OLD_RUN = FIXTURES / "run-032f7dc"
NO_LORA = {"rank": 0, "alpha": 32.0, "targets": None}
ALONE = {"launch": "none"}


def keys_of(number: int) -> set[str]:
    return set((FIXTURES / f"keys-of-format-{number}.txt").read_text().splitlines())


def is_given(key: str, since: int) -> bool:
    """The table says what runs of this format did before the key was there."""
    name, _, choice = key.partition(" if ")
    for number, rows in ADDED.items():
        for row in rows if number > since else ():
            reads = row.only is None or choice == "=".join(row.only)
            if reads and (name == row.key or name.startswith(f"{row.key}.")):
                return True
    return False


def test_the_schema_is_the_one_of_todays_format() -> None:
    """A key came or went: raise FORMAT (or, before a release, go on with it), say in `runs.format.ADDED` what runs did
    before, and write the list anew (tests/support/schema_keys.py)."""
    assert set(schema_keys()) == keys_of(FORMAT)


@pytest.mark.parametrize("number", range(1, FORMAT))
def test_every_key_that_an_older_format_lacks_is_in_the_table(number: int) -> None:
    choices = {key.partition(" if ")[2] for key in keys_of(number)}
    of_known_choices = [key for key in schema_keys() if key.partition(" if ")[2] in choices]  # no old run chose others
    assert [key for key in of_known_choices if key not in keys_of(number) and not is_given(key, number)] == []
    assert keys_of(number) <= set(schema_keys()), "a key that went has to be taken out of older configurations"


def missing(schema: BaseModel, values: dict[str, Any], above: str = "") -> list[str]:
    """Keys of a validated configuration that the plain values do not have."""
    found = []
    for name in type(schema).model_fields:
        key, node = f"{above}{name}", getattr(schema, name)
        if name not in values:
            found.append(key)
        elif isinstance(node, BaseModel):
            found += missing(node, values[name], f"{key}.")
    return found


def test_the_run_of_format_1_lacks_what_the_table_gives() -> None:
    assert "format" not in read_run_file(OLD_RUN)
    cfg = saved_config(OLD_RUN)
    lacking = missing(cfg, yaml.safe_load((OLD_RUN / "config.yaml").read_text()))
    assert sorted(lacking) == sorted([
        "model.param_dtype", "model.lora", "trainer.optimizer", "algo.advantage.penalty",
        "algo.credit.control", "algo.credit.order", "algo.credit.scaled",
        "algo.credit.shift",
        "trainer.warm_start.keep_failed", "logger.sinks", "trainer.oom",
        "trainer.watchdog", "trainer.health.max_bad_updates", "trainer.health.max_failed_calls",
        "trainer.warm_start.file", "trainer.warm_start.epochs", "trainer.warm_start.held_out", "dist",
        "rollout.max_staleness", "rollout.vllm", "logger.trackers", "logger.wandb.name", "logger.wandb.notes",
        "logger.wandb.artifacts", "logger.mlflow", "logger.trackio", "logger.swanlab",
    ])  # fmt: skip
    assert (cfg.model.param_dtype, cfg.algo.advantage.penalty, cfg.trainer.warm_start.keep_failed) == (
        "float32", "episode", False,
    )  # fmt: skip


@pytest.mark.parametrize("row", [row for rows in ADDED.values() for row in rows], ids=lambda row: row.key)
def test_a_row_of_the_table_names_a_key_and_the_choice_that_reads_it(row) -> None:
    keys = {key.partition(" if ")[0] for key in schema_keys()}
    assert row.key in keys
    assert not isinstance(row.then, Like) or row.then.key in keys
    if row.only:
        assert [str(choice) for choice in readers(TrainConfig, row.key)] == ["=".join(row.only)]


@pytest.mark.parametrize(
    "words",
    [
        *(
            [f"algo={algo}"]
            for algo in (
                "empg",
                "gigpo",
                "hgpo",
                "graphgpo",
                "g2po",
                "turn_credit",
                "rloo",
                "reinforce_pp",
                "reinforce_pp_baseline",
                "cispo",
            )
        ),
        ["benchmark=webshop"],
        ["benchmark=deepsearch"],
        ["model=smollm2-135m"],
    ],
    ids=str,
)
def test_a_configuration_without_the_new_keys_becomes_the_one_with_them(words: list[str]) -> None:
    full = config.load(words).model_dump()
    old = copy.deepcopy(full)
    for rows in ADDED.values():
        for row in rows:
            above, _, name = row.key.rpartition(".")
            (lookup(old, above) or {}).pop(name, None)  # what stands above it may be new itself
    assert old != full
    health, _ = full["trainer"].pop("health"), full["trainer"].pop("watchdog")
    found = migrated(old)
    watched = found["trainer"].pop("health")
    assert found["trainer"].pop("watchdog") == 0
    assert found == full
    new = {"max_failed_calls": 1.0, "max_bad_updates": 0}
    assert watched == {**health, "preflight": "off", "warn": False, **new}  # nobody watched
    assert "health" not in old["trainer"], "what is given is left as it was"


def test_keys_are_filled_in_where_they_are_absent_whatever_the_format(tmp_path: Path) -> None:
    """A commit between two keys of a format has made folders without the later one."""
    (tmp_path / "config.yaml").write_text("model: {dtype: bfloat16}\n")
    filled = {"dtype": "bfloat16", "param_dtype": "bfloat16", "lora": NO_LORA}
    assert saved_values(tmp_path) == {"model": filled, "dist": ALONE}
    update_run_file(tmp_path, format=FORMAT)
    assert saved_values(tmp_path) == {"model": filled, "dist": ALONE}
    given = {"model": {**filled, "param_dtype": "float32"}, "logger": {"sinks": ["a:b"]}, "dist": {"launch": "node"}}
    trackers = {
        "trackers": ["wandb"],
        "mlflow": {"uri": None, "experiment": "empg"},
        "trackio": {"project": "empg"},
        "swanlab": {"mode": "auto", "project": "empg"},
    }
    assert migrated(given) == {**given, "logger": {"sinks": ["a:b"], **trackers}}


@pytest.mark.parametrize("number", ["1e-5", "1.0e-05", "2.5e5", "-1E3"])
def test_numbers_are_numbers(number: str, tmp_path: Path) -> None:
    """Those that a person wrote, too: YAML 1.1 takes 1e-5 for a text."""
    (tmp_path / "config.yaml").write_text(f"trainer: {{lr: {number}}}\n")
    assert saved_values(tmp_path)["trainer"]["lr"] == float(number)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    cfg = tiny_config("trainer.lr=1e-7", "logger.wandb.tags=['1e5','2026-01-01',yes]")
    config.write(cfg, tmp_path / "config.yaml")
    assert saved_config(tmp_path) == cfg


@pytest.mark.parametrize("stated", ["two", True, 0, -1, 2.0, None])
def test_a_format_is_a_number_from_1_on(stated: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"format": stated}))
    with pytest.raises(UserError, match=rf"run\.json says format {stated!r}, which is no format"):
        read_run_file(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_broken_run_file_is_one_message(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"run\.json (is not readable JSON|must hold a JSON object)"):
        read_run_file(tmp_path)


@pytest.mark.parametrize("content", ["a: [", "a: b: c", "\xff"])
def test_a_broken_configuration_is_one_message(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"config\.yaml, line 1.*: is not (readable YAML|UTF-8 text)"):
        saved_values(tmp_path)


def test_a_saved_configuration_may_lack_the_logger(tmp_path: Path) -> None:
    values = yaml.safe_load((OLD_RUN / "config.yaml").read_text())
    del values["logger"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    name = primary_config("eval", tmp_path, [])
    assert "logger" not in ConfigStore.instance().load(f"{name}.yaml").node


def opened(cfg: TrainConfig, folder: Path, resume: str | None, digest: str | None) -> OpenFolder:
    data = {"name": "alfworld", "source": "official", "digest": digest}
    return open_folder(cfg.model_copy(update={"resume": resume}), folder, data=data, task_kinds=["a"])


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    cfg = tiny_config()
    opened(cfg, tmp_path / "run", None, "one")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"update": 1}\n')
    checkpoint = write_checkpoint(tmp_path / "run", TrainState(update=1), lambda folder: None, keep=1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    for folder in ("run", "elsewhere"):
        with pytest.raises(ConfigError, match=r"not the data that the run was trained on: digest one, now two"):
            opened(cfg, tmp_path / folder, str(checkpoint), "two")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    for digest in ("one", None):  # equal, or not known
        opened(cfg, tmp_path / "run", str(checkpoint), digest).held.release()


def test_a_run_does_not_go_on_with_other_demonstrations(tmp_path: Path) -> None:
    demos = tmp_path / "demos.jsonl"
    demos.write_text("one")
    cfg = tiny_config(f"trainer.warm_start.file={demos}")
    opened(cfg, tmp_path / "run", None, "d")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"update": 1}\n')
    checkpoint = write_checkpoint(tmp_path / "run", TrainState(update=1), lambda folder: None, keep=1)
    moved = tmp_path / "moved.jsonl"
    moved.write_text("one")
    opened(tiny_config(f"trainer.warm_start.file={moved}"), tmp_path / "run", str(checkpoint), "d").held.release()
    demos.write_text("two")
    for other in (cfg, tiny_config()):
        with pytest.raises(ConfigError, match=r"file: is not the file that the warm start imitated: digest"):
            opened(other, tmp_path / "run", str(checkpoint), "d")


@pytest.mark.parametrize(("digest", "source", "warns"), [
    ("two", "official", True), ("one", "official", False), ("two", "generated", False), (None, "official", False),
])  # fmt: skip
def test_an_evaluation_on_other_data_than_the_runs_says_so(
    digest: str | None, source: str, warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tiny_config(), tmp_path, None, "one")
    cfg = EvalConfig.model_construct(run=str(tmp_path))
    compare_with_training(cfg, {"name": "alfworld", "source": source, "digest": digest})
    assert ("not what the run was trained on: digest one then, two now" in caplog.text) == warns


@pytest.mark.parametrize("stated", [FORMAT + 1])
def test_a_folder_from_the_future_is_neither_read_nor_written(stated: int, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"format": stated}))
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    for use in (read_run_file, saved_values, lambda folder: update_run_file(folder, seed=1)):
        with pytest.raises(FromTheFuture, match=rf"format {stated}.* up to {FORMAT}: update empg"):
            use(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text()) == {"format": stated}
