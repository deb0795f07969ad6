"""metrics.jsonl, metrics.csv, summary.json, run.json: what is on disk, also after a crash and a resume."""

from __future__ import annotations

import csv
import json
import logging
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.errors import UserError
from empg_cli.files import write_atomically
from empg_cli.observe.identity import RunIdentity
from empg_cli.observe.sinks import Fan, open_sinks
from empg_cli.runs.file_sinks import CsvSink
from empg_cli.runs.rows import clean_row, read_rows, without_wall_clock
from empg_cli.runs.run_file import read_run_file, update_run_file

IDENTITY = RunIdentity.of_seed("alfworld-empg", 0)


def open_files(run_dir: Path, resume_from_update: int | None = None, *, csv_too: bool = True) -> Fan:
    cfg = SimpleNamespace(trackers=["wandb"], csv=csv_too, wandb=SimpleNamespace(mode="disabled"))
    return open_sinks(cfg, run_dir, run_config={}, identity=IDENTITY, resume_from_update=resume_from_update)


def row(update: int) -> dict[str, float]:
    values = {"train/update": update, "actor/kl_loss": 0.1 * update / 3}
    return values | ({"eval/success_rate": 1 / (update + 2)} if update % 4 == 0 else {})


def play(fan: Fan, start: int, end: int) -> None:
    for update in range(start, end):
        fan.log(update, row(update))
    fan.close(0)


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_with_the_same_bits(value):
    clean, _ = clean_row({"x": value})
    assert bits(json.loads(json.dumps(clean))["x"]) == bits(value)


def test_line_is_one_object_with_the_update_first(tmp_path):
    fan = open_files(tmp_path)
    fan.log(3, {"train/update": 3, "actor/kl_loss": 0.1 + 0.2})
    # read before close: a line is on disk as soon as it is logged
    line = '{"update": 3, "train/update": 3, "actor/kl_loss": 0.30000000000000004}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == line


def test_tensors_and_numpy_scalars_are_numbers(tmp_path):
    fan = open_files(tmp_path)
    fan.log(1, {"a": torch.tensor(0.5), "b": np.float32(0.25), "c": np.int64(7), "d": True})
    assert read_rows(tmp_path / "metrics.jsonl") == {1: {"a": 0.5, "b": 0.25, "c": 7.0, "d": 1}}


def test_not_finite_is_null_and_counted(tmp_path):
    fan = open_files(tmp_path)
    fan.log(1, {"a": float("nan"), "b": float("-inf"), "c": 2.0})
    fan.log(2, {"a": 1.0, "b": 1.0, "c": 2.0})
    fan.close(0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"update": 1, "a": None, "b": None, "c": 2.0, "train/nonfinite": 2}
    assert "train/nonfinite" not in lines[1]
    assert (tmp_path / "metrics.csv").read_text() == "update,a,b,c,train/nonfinite\n1,,,2.0,2\n2,1.0,1.0,2.0,\n"


def test_what_is_no_number_is_left_out_with_one_warning(tmp_path, caplog):
    fan = open_files(tmp_path)
    with caplog.at_level(logging.WARNING):
        fan.log(1, {"a": "high", "b": 1.0})
        fan.log(2, {"a": None, "b": 2.0})
    assert read_rows(tmp_path / "metrics.jsonl") == {1: {"b": 1.0}, 2: {"b": 2.0}}
    assert [record.getMessage() for record in caplog.records] == [
        "metric a is not a number ('high' at update 1) and is left out from now on"
    ]


def test_csv_with_late_columns_and_two_rows_of_one_update(tmp_path):
    sink = CsvSink(tmp_path / "metrics.csv", {})
    sink.log(1, {"a": 1.0})
    sink.log(2, {"a": 2.0})
    sink.log(2, {"eval/pick, then place/success_rate": 0.5})  # an evaluation, and a name that needs quoting
    sink.log(3, {"b": 4.0, "a": 3.0})
    sink.close(0)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["update", "a", "eval/pick, then place/success_rate", "b"],
            ["1", "1.0", "", ""],
            ["2", "2.0", "0.5", ""],
            ["3", "3.0", "", "4.0"],
        ]


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_resumed_run_leaves_the_files_of_a_straight_one(tmp_path, cut):
    play(open_files(tmp_path / "straight"), 0, 12)
    # stopped after update 9, checkpoint at cut - 1: updates cut.. come again
    play(open_files(tmp_path / "resumed"), 0, 10)
    play(open_files(tmp_path / "resumed", resume_from_update=cut), cut, 12)
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path, caplog):
    play(open_files(tmp_path), 1, 4)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING):
        play(open_files(tmp_path, resume_from_update=4), 4, 5)
    assert list(read_rows(path)) == [1, 2, 4]
    assert all(line.endswith("}") for line in path.read_text().splitlines())
    assert "line 3 is not a row" in caplog.text


def test_a_new_run_in_a_used_folder_sets_the_old_rows_aside(tmp_path, caplog):
    play(open_files(tmp_path), 0, 3)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with caplog.at_level(logging.WARNING):
        play(open_files(tmp_path), 0, 1)
    assert (tmp_path / "metrics.before.jsonl").read_bytes() == before
    assert list(read_rows(tmp_path / "metrics.jsonl")) == [0]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
    assert "metrics.before.jsonl" in caplog.text


def test_two_rows_of_one_update_are_merged_on_reading(tmp_path):
    fan = open_files(tmp_path, csv_too=False)
    fan.log(5, {"a": 1.0})
    fan.log(5, {"eval/success_rate": 0.5})
    assert read_rows(tmp_path / "metrics.jsonl") == {5: {"a": 1.0, "eval/success_rate": 0.5}}


def test_wall_clock_families_are_the_only_ones_removed():
    logged = {"timing_s/rollout": 1, "perf/throughput": 2, "time/elapsed_s": 3, "episode/length/mean": 4, "update": 5}
    assert without_wall_clock(logged) == {"episode/length/mean": 4, "update": 5}


def test_summary_file_adds_up_and_ends_with_the_exit_code(tmp_path):
    (tmp_path / "summary.json").write_text('{"from": "an earlier run"}')
    fan = open_files(tmp_path)
    assert not (tmp_path / "summary.json").exists()
    fan.summary({"best/success_rate": 0.4})
    fan.summary({"best/success_rate": 0.5, "best/update": 20})
    fan.close(143)
    fan.close(0)  # the first word counts
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"best/success_rate": 0.5, "best/update": 20, "exit_code": 143}


def test_run_file_keeps_what_it_does_not_change(tmp_path):
    assert read_run_file(tmp_path) == {}
    update_run_file(tmp_path, wandb_id="abc", seed=3)
    update_run_file(tmp_path, wandb_id="def")
    assert read_run_file(tmp_path) == {"wandb_id": "def", "seed": 3}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is not readable JSON"):
        read_run_file(tmp_path)


def test_a_run_file_that_something_else_has_changed_is_refused(tmp_path):
    update_run_file(tmp_path, prompt_date="2026-11-29", seed=3)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace("11-29", "11-28"))
    with pytest.raises(UserError, match=r"run\.json is not what empg wrote: .* delete its line `checksum`"):
        read_run_file(tmp_path)
    facts = json.loads(text)
    del facts["checksum"]  # somebody means it
    (tmp_path / "run.json").write_text(json.dumps(facts | {"seed": 4}))
    update_run_file(tmp_path, ("prompt_date",), more=1)
    assert read_run_file(tmp_path) == {"seed": 4, "more": 1}


def test_an_atomic_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")  # half a character cannot be encoded
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
