"""Logging never stops a run, and credentials never leave the machine."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from empg_cli.config.secrets import mask_secrets
from empg_cli.observe.identity import RunIdentity, identity_of
from empg_cli.observe.sinks import Fan, open_sinks
from empg_cli.observe.trackers import wandb_is_wanted
from empg_cli.observe.wandb_sink import stable_run_id
from empg_cli.runs.rows import read_rows


class Recording:
    def __init__(self, name: str, fails_at: int | None = None) -> None:
        self.name, self.pointer, self.fails_at = name, f"somewhere/{name}", fails_at
        self.rows: list[tuple[int, dict]] = []
        self.exit_code: int | None = None

    def log(self, step, row):
        if step == self.fails_at:
            raise ConnectionError("the server is gone")
        self.rows.append((step, row))

    def summary(self, values):
        pass

    def close(self, exit_code):
        self.exit_code = exit_code


def test_a_failing_sink_is_dropped_with_one_warning_and_the_others_go_on(caplog):
    broken, sound = Recording("broken", fails_at=2), Recording("sound")
    fan = Fan([broken, sound])
    with caplog.at_level(logging.WARNING):
        for step in range(5):
            fan.log(step, {"a": step})
        fan.close(7)
    assert [step for step, _ in broken.rows] == [0, 1]
    assert [step for step, _ in sound.rows] == [0, 1, 2, 3, 4]
    assert (broken.exit_code, sound.exit_code) == (None, 7)
    assert [record.getMessage() for record in caplog.records] == [
        "broken logging is off (log failed: ConnectionError: the server is gone)"
    ]
    assert fan.pointers == {"broken": "somewhere/broken", "sound": "somewhere/sound"}


def test_ctrl_c_in_a_sink_is_not_swallowed():
    class Interrupted(Recording):
        def log(self, step, row):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Fan([Interrupted("slow")]).log(0, {})


def test_a_sink_that_cannot_start_leaves_the_others(tmp_path, caplog):
    (tmp_path / "metrics.csv").mkdir()  # so that no file can be opened there
    cfg = SimpleNamespace(trackers=["wandb"], csv=True, wandb=SimpleNamespace(mode="disabled"))
    with caplog.at_level(logging.WARNING):
        fan = open_sinks(cfg, tmp_path, run_config={}, identity=RunIdentity.of_seed("g", 0), resume_from_update=None)
    fan.log(1, {"a": 1.0})
    assert read_rows(tmp_path / "metrics.jsonl") == {1: {"a": 1.0}}
    assert "csv logging is off (it could not start" in caplog.text


def test_name_is_the_group_and_the_seed():
    identity = RunIdentity.of_seed("alfworld-empg", 3, tags=["alfworld", "empg"])
    assert (identity.name, identity.group, identity.job_type) == ("alfworld-empg-s3", "alfworld-empg", "train")


def test_secrets_are_masked_and_settings_are_not(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    config = {
        "rollout": {"max_new_tokens": 16, "tokens_per_microbatch": 4096, "engine_url": "http://me:pw@host:8000/v1"},
        "wandb": {"api_key": "1234", "password": None},
        "servers": [{"auth_token": "x"}, {"note": "uses hf_abcdefghij here"}],
        "seed": 3,
    }
    assert mask_secrets(config) == {
        "rollout": {"max_new_tokens": 16, "tokens_per_microbatch": 4096, "engine_url": "http://***@host:8000/v1"},
        "wandb": {"api_key": "***", "password": None},
        "servers": [{"auth_token": "***"}, {"note": "uses *** here"}],
        "seed": 3,
    }
    assert config["wandb"]["api_key"] == "1234"  # the run's own config is not touched


def test_names_notes_and_tags_hold_no_secrets(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcd1234")
    settings = SimpleNamespace(name="my abcd1234", group=None, tags=["abcd1234"])
    identity = identity_of(settings, RunIdentity.of_seed("g", 0), environ={"WANDB_TAGS": "x,sk-a1b2c3d4e5f6g7h8i9"})
    assert (identity.name, identity.tags) == ("my ***", ("***", "x"))


@pytest.mark.parametrize(
    ("asked", "environment", "wanted"),
    [
        ("disabled", "online", False),
        ("auto", "disabled", False),
        ("auto", "offline", True),
        ("auto", None, True),
        ("offline", "disabled", True),  # what the config names wins
    ],
)
def test_when_wandb_is_wanted(asked, environment, wanted, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert wandb_is_wanted(asked) is wanted


def test_a_resumed_run_keeps_its_wandb_id_and_a_new_one_gets_another(tmp_path):
    first = stable_run_id(tmp_path, is_resumed=False)
    assert stable_run_id(tmp_path, is_resumed=True) == first
    second = stable_run_id(tmp_path, is_resumed=False)
    assert second != first
    assert stable_run_id(tmp_path, is_resumed=True) == second


def test_disabled_never_imports_wandb_and_nothing_imports_torch_or_rich(tmp_path):
    program = f"""
import sys
from pathlib import Path
from types import SimpleNamespace as N
from empg_cli.observe import dashboard
from empg_cli.observe import summary
from empg_cli.observe.identity import RunIdentity
from empg_cli.observe.sinks import open_sinks
fan = open_sinks(N(trackers=["wandb"], csv=True, wandb=N(mode="disabled")), Path({str(tmp_path)!r}), run_config={{}},
                 identity=RunIdentity.of_seed("g", 0), resume_from_update=None)
fan.log(0, {{"a": 1.0}})
fan.close(0)
print(sorted({{"wandb", "torch", "rich", "transformers"}} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
