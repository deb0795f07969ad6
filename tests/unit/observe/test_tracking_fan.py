"""Logging never stops a run, and credentials never leave the machine."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from empg_cli.config.secrets import mask_secrets
from empg_cli.invocation import script
from empg_cli.observe import sinks
from empg_cli.observe.identity import RunIdentity, identity_of, keep_ids_with_folder, tell_run_file
from empg_cli.observe.mlflow_sink import named
from empg_cli.observe.sinks import Fan, open_sinks
from empg_cli.observe.trackers import wandb_is_wanted
from empg_cli.observe.wandb_artifacts import SLOWEST
from empg_cli.observe.wandb_sink import WandbSink, stable_run_id
from empg_cli.runs.checkpoint import MODEL
from empg_cli.runs.rows import read_rows
from empg_cli.runs.run_file import read_run_file, update_run_file


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
    assert (broken.exit_code, sound.exit_code) == (7, 7)  # what it has open ends
    assert [record.getMessage() for record in caplog.records] == [
        "broken logging is off (log failed: ConnectionError: the server is gone)"
    ]
    assert fan.pointers == {"broken": "somewhere/broken", "sound": "somewhere/sound"}


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_one_that_cannot_be_closed_either_holds_nothing_up(how, monkeypatch, caplog):
    monkeypatch.setattr(sinks, "CLOSING_S", 0.2)
    never = threading.Event()

    class Broken(Recording):
        closed = 0

        def close(self, exit_code):
            self.closed += 1
            if how == "raises":
                raise ConnectionError("still gone")
            never.wait(60)

    broken, sound = Broken("broken", fails_at=0), Recording("sound")
    fan = Fan([broken, sound])
    fan.log(0, {"a": 1})
    begun = time.monotonic()
    fan.close(0)
    fan.close(0)
    assert time.monotonic() - begun < 30
    never.set()
    assert (broken.closed, sound.exit_code) == (1, 0)
    assert len(caplog.records) == 1


def test_one_that_fails_to_close_is_not_closed_again():
    class Closing(Recording):
        closed = 0

        def close(self, exit_code):
            self.closed += 1
            raise ConnectionError("gone")

    sink = Closing("closing")
    Fan([sink]).close(0)
    assert sink.closed == 1


def resumed(folder):
    keep_ids_with_folder(folder)
    return read_run_file(folder)


def test_a_folder_that_went_to_another_disk_goes_on_unless_the_run_is_still_there(tmp_path, caplog):
    run = tmp_path / "run"
    run.mkdir()
    keep_ids_with_folder(run)
    stable_run_id(run, is_resumed=False)
    there = read_run_file(run)["trackers"]["place"]
    elsewhere = there | {"inode": "9999999:1"}  # as another device has it
    update_run_file(run, trackers={"place": elsewhere, "trackio": "a-1"})
    copy = shutil.copytree(run, tmp_path / "copy")
    kept = resumed(shutil.copytree(run, tmp_path / "kept"))
    assert "wandb_id" not in kept and "is a copy of the run in" in caplog.text
    caplog.clear()
    shutil.rmtree(run)
    assert resumed(copy)["trackers"]["trackio"] == "a-1"
    assert "wandb_id" in read_run_file(copy) and caplog.text == ""


def test_a_copy_of_a_folder_is_no_run_that_trackers_know(tmp_path, caplog):
    run = tmp_path / "run"
    run.mkdir()
    keep_ids_with_folder(run)
    stable_run_id(run, is_resumed=False)
    tell_run_file(run, name="a", group="g", trackio="a-1", mlflow={"run": "1"})
    known = resumed(run)
    copy = shutil.copytree(run, tmp_path / "copy")
    moved = run.rename(tmp_path / "moved")
    assert {**resumed(moved)["trackers"], "place": None} == {**known["trackers"], "place": None}
    assert read_run_file(moved)["wandb_id"] == known["wandb_id"]
    assert caplog.text == ""
    assert resumed(copy)["trackers"].keys() == {"name", "group", "place"}
    assert "wandb_id" not in read_run_file(copy)
    assert "is a copy of the run in" in caplog.text
    own = stable_run_id(copy, is_resumed=True)
    assert own != known["wandb_id"]
    assert resumed(copy)["wandb_id"] == own  # from then on it is its own


def test_a_folder_that_was_put_back_from_a_copy_goes_on(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    keep_ids_with_folder(run)
    tell_run_file(run, trackio="a-1")
    shutil.copytree(run, tmp_path / "backup")
    run.rename(tmp_path / "gone")
    shutil.copytree(tmp_path / "backup", run)
    assert resumed(run)["trackers"]["trackio"] == "a-1"


def test_a_run_from_before_its_folder_was_kept_goes_on(tmp_path):
    tell_run_file(tmp_path, trackio="a-1")
    assert resumed(tmp_path)["trackers"]["trackio"] == "a-1"


class Policies:
    """A run of W&B that is told of policies and of its end."""

    id = "abc"

    def __init__(self, folder, *, times_out=False):
        self.dir, self.url, self.times_out = str(folder / "wandb" / "run-1" / "files"), "", times_out
        self.waited: list[int] = []
        self.staged: list[str | None] = []
        self.finished: list[int] = []

    def log_artifact(self, artifact, aliases):
        self.staged.append(os.environ.get("WANDB_DATA_DIR"))
        return SimpleNamespace(wait=lambda timeout: self.waited.append(timeout))

    def finish(self, exit_code):
        self.finished.append(exit_code)
        if self.times_out:
            raise TimeoutError


def closing(folder, run, *, is_online=True):
    sink = object.__new__(WandbSink)  # without the run that it would open
    sink._run, sink._folder, sink._is_online, sink._patience_s = run, folder, is_online, 120.0
    sink._cfg = SimpleNamespace(artifacts=["last"])
    return sink


@pytest.mark.parametrize(
    ("exit_code", "is_online", "waits"), [(0, True, 1), (3, True, 1), (0, False, 0), (143, True, 0)]
)
def test_wandb_waits_for_policies_as_long_as_they_take(exit_code, is_online, waits, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    model = tmp_path / "checkpoints" / "step-000001" / MODEL
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(bytes(3 * SLOWEST))
    run = Policies(tmp_path)
    closing(tmp_path, run, is_online=is_online).close(exit_code)
    assert run.waited == [123] * waits and run.finished == [exit_code]
    assert set(run.staged) <= {str(tmp_path / "wandb" / "data")}  # not in the user's home
    assert "WANDB_DATA_DIR" not in os.environ


def test_what_wandb_has_not_got_in_time_is_said_with_the_command(tmp_path, caplog):
    closing(tmp_path, Policies(tmp_path, times_out=True)).close(143)
    (record,) = caplog.records
    assert (
        f"W&B has not got all of the run within 120 s; to send the rest: {script('wandb')} sync" in record.getMessage()
    )
    assert str(tmp_path / "wandb" / "run-1") in record.getMessage()


def test_names_for_mlflow_are_its_own():
    assert named("eval/pick & place (2)/success_rate") == "eval/pick _ place _2_/success_rate"
    assert [named(name) for name in ("a//b", "../a", "/a", "train/update")] == ["a/_/b", "__/a", "_/a", "train/update"]
    assert len(named("x" * 300)) == 250


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
