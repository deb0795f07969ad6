"""What a run has recorded before a checkpoint is there as it was written, or the fault is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from empg_cli.runs import checkpoint as checkpoints
from empg_cli.runs.checkpoint import TrainState, write_checkpoint
from empg_cli.runs.history import HISTORY, HistoryError, check_history, history_faults, row_faults, seal


def lines(*updates: int) -> bytes:
    return b"".join(json.dumps({"update": update, "a": 0.5}).encode() + b"\n" for update in updates)


def write(path: Path, *updates: int) -> Path:
    path.write_bytes(lines(*updates))
    return path


@pytest.mark.parametrize(
    ("updates", "faults"),
    [
        ((0, 1, 2, 3), []),
        ((1, 2, 3), []),  # without an evaluation before
        ((0, 1, 2, 3, 4, 9, 9), []),  # what comes after the checkpoint is made again
        ((0, 1, 3), ["the row of update 2 is missing"]),
        ((0, 3), ["the row of update 1 to 2 is missing"]),
        ((0,), ["the row of update 1 to 3 is missing"]),
        ((0, 1, 2, 2, 2, 3), ["update 2 stands in lines 3, 4 and 5"]),
        ((0, 2, 1, 3), ["line 3 is of update 1, and stands behind that of update 2"]),
        ((0, 1, 2, 7, 3), ["line 5 is of update 3, and stands behind that of update 7"]),
    ],
)
def test_each_update_has_one_row_in_order(updates: tuple[int, ...], faults: list[str], tmp_path: Path) -> None:
    assert row_faults(write(tmp_path / "metrics.jsonl", *updates), 3, range(1, 4)) == faults


@pytest.mark.parametrize("row", [b'{"update": 2, "a', b"", b'{"a": 1}', b'{"update": "2"}', b"\xff\x00", b"[2]"])
def test_a_line_that_is_no_row_has_its_number(row: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(0, 1) + row + b"\n" + lines(3))
    assert row_faults(path, 3, range(1, 4)) == ["line 3 is no whole row", "the row of update 2 is missing"]
    path.write_bytes(lines(0, 1, 2, 3) + row)  # what a crash has cut is behind the checkpoint
    assert row_faults(path, 3, range(1, 4)) == []


def test_updates_without_a_row_and_with_several(tmp_path: Path) -> None:
    path = write(tmp_path / "health.jsonl", 2, 2, 3)
    assert row_faults(path, 3, one_each=False) == []
    assert row_faults(path, 3) == ["update 2 stands in lines 1 and 2"]
    assert row_faults(tmp_path / "none.jsonl", 3) == []


def test_only_the_first_faults_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", *(update for update in range(9) for _ in range(2)))
    assert row_faults(path, 8)[-1] == "3 faults more"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three updates, an evaluation, a trajectory file, and the checkpoint after them."""
    write(tmp_path / "metrics.jsonl", 0, 1, 2, 3)
    write(tmp_path / "histograms.jsonl", 1, 3)
    for name in ("evaluations/update-000003.json", "trajectories/update-000003-eval.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text('{"update": 3, "total": {"n": 2, "success_rate": 0.5}}\n')
    write_checkpoint(tmp_path, TrainState(update=3), lambda folder: None, keep=1)
    return tmp_path


def faults(run: Path) -> list[str]:
    return history_faults(run, run / "checkpoints" / "step-000003", first=1, done=3)


def test_a_checkpoint_seals_what_was_recorded_before_it(run: Path) -> None:
    assert faults(run) == []
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(lines(4))
    assert faults(run) == [], "the run has gone on"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("metrics.jsonl", "metrics.jsonl is not what the run wrote up to byte 96"),
        ("histograms.jsonl", "histograms.jsonl is not what the run wrote up to byte 48"),
        ("evaluations/update-000003.json", "evaluations/update-000003.json is not what the run wrote"),
        ("trajectories/update-000003-eval.jsonl", "trajectories/update-000003-eval.jsonl is not what the run wrote"),
    ],
)
def test_a_number_that_was_changed_is_seen(run: Path, name: str, fault: str) -> None:
    path = run / name
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.7"))
    assert faults(run) == [fault]


def test_what_is_gone_is_missed(run: Path) -> None:
    (run / "evaluations" / "update-000003.json").unlink()
    (run / "histograms.jsonl").unlink()
    (run / "trajectories" / "update-000003-eval.jsonl").unlink()
    assert faults(run) == [
        "histograms.jsonl is missing",
        "evaluations/update-000003.json is missing",
        "trajectories/update-000003-eval.jsonl is missing",
    ]


def test_a_run_does_not_go_on_over_a_broken_record(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = run / "trajectories" / "update-000003-eval.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    check_history(run, run / "checkpoints" / "step-000003", first=1, done=3)
    assert "update-000003-eval.jsonl is not what the run wrote" in caplog.text
    write(run / "metrics.jsonl", 0, 1, 3)
    with pytest.raises(HistoryError, match=r"before step-000003:\n  metrics.jsonl: the row of update 2 is missing$"):
        check_history(run, run / "checkpoints" / "step-000003", first=1, done=3)


def test_a_checkpoint_of_an_older_empg_has_no_seal(run: Path) -> None:
    (run / "checkpoints" / "step-000003" / HISTORY).unlink()
    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes().replace(b"0.5", b"0.7"))
    assert faults(run) == []
    write(run / "metrics.jsonl", 0, 1, 3)
    assert faults(run) == ["metrics.jsonl: the row of update 2 is missing"]


def test_rows_are_on_the_disk_before_the_checkpoint_appears(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((name, (run / "checkpoints" / "step-000004").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(lines(4))
    write_checkpoint(run, TrainState(update=4), lambda folder: None, keep=1)
    assert {("metrics.jsonl", False), ("histograms.jsonl", False)} <= set(synced)


def test_rows_that_cannot_be_made_durable_are_no_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(run_dir: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoints, "seal", refuses)
    assert write_checkpoint(run, TrainState(update=4), lambda folder: None, keep=1) is None
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000003"]


def test_a_seal_reads_a_file_once_that_is_never_written_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from empg_cli.runs import history

    read: list[str] = []
    real = history._digest

    def digest(path: Path, size: int) -> str:
        read.append(path.name)
        return real(path, size)

    monkeypatch.setattr(history, "_digest", digest)
    assert seal(run) == seal(run)
    assert read == ["metrics.jsonl", "histograms.jsonl"] * 2
