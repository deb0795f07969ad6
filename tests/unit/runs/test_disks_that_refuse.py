"""A disk that refuses: what recognises it, what waits, what is left out, and what is never left behind."""

from __future__ import annotations

import errno
import io
import logging
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch

from empg_cli.disk import free_bytes, in_bytes, refusal
from empg_cli.files import check_writable, paths_in, temporaries, write_atomically
from empg_cli.learner.checkpoint import checkpoint_bytes, save_checkpoint
from empg_cli.learner.optim import make_optimizer
from empg_cli.observe.log_file import LogFile
from empg_cli.observe.sinks import Fan
from empg_cli.runs.checkpoint import (
    TrainState,
    all_checkpoints,
    not_saved,
    remove_leftovers,
    warn_of_little_room,
    write_checkpoint,
)
from empg_cli.runs.file_sinks import CsvSink, JsonlSink, SummaryFileSink
from empg_cli.runs.histograms import Histogram, HistogramSink, read_histograms
from empg_cli.runs.manifest import checkpoint_fault
from empg_cli.runs.patience import Patience
from empg_cli.runs.row_file import RowFile
from empg_cli.runs.rows import read_rows
from empg_cli.services.cache import AnswerCache
from tests.support.disks import files_end_at
from tests.support.tiny import tiny_config, tiny_policy

BIG = {"a": torch.zeros(100_000)}
FULL = OSError(errno.ENOSPC, "No space left on device")


def by_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save(BIG, file)


def by_tokenizers(path: Path) -> None:
    words = {f"word{number}": number for number in range(10_000)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "word0")).save(str(path))


def by_sqlite(path: Path) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("create table t (b blob)")
    database.execute("insert into t values (?)", (bytes(300_000),))


WRITERS = {
    "torch": by_torch,
    "safetensors": lambda path: safetensors.torch.save_file(BIG, path),
    "tokenizers": by_tokenizers,
    "numpy": lambda path: np.save(path, np.zeros(100_000)),
    "sqlite": by_sqlite,
    "python": lambda path: path.write_bytes(bytes(300_000)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_recognised_behind_the_error_of(name: str, tmp_path: Path) -> None:
    with files_end_at(100_000), pytest.raises(Exception) as caught:  # noqa: PT011 (each has a type of its own)
        WRITERS[name](tmp_path / "file.npy")
    assert refusal(caught.value) in ("File too large", "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        PermissionError(13, "denied"),
        FileNotFoundError(2, "none"),
        ValueError("(os error 2)"),
    ],
)
def test_other_errors_are_not_the_disk(error: Exception) -> None:
    assert refusal(error) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_what_a_disk_can_say(number: int) -> None:
    assert refusal(OSError(number, "x")) == os.strerror(number)
    hidden = RuntimeError("unexpected pos 576 vs 534")
    hidden.__context__ = OSError(number, "x")
    assert refusal(hidden) == os.strerror(number)


def test_sizes_for_people(tmp_path: Path) -> None:
    sizes = [0, 999, 4_100_000, 999_999_999, 3 * 10**12]
    assert [in_bytes(size) for size in sizes] == ["0 bytes", "999 bytes", "4.1 MB", "1000.0 MB", "3.0 TB"]
    assert free_bytes(tmp_path / "not" / "there") == pytest.approx(free_bytes(tmp_path), rel=0.1)


# Rows


def test_half_a_row_is_taken_back_and_the_next_one_is_whole(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows")
    file.append("one\n")
    with files_end_at(8), pytest.raises(OSError, match="too large") as caught:
        file.append("two is too long\n")
    assert caught.value.filename == str(tmp_path / "rows")
    assert file.path.read_text() == "one\n"
    file.append("three\n")
    file.sync()
    file.close()
    assert file.path.read_text() == "one\nthree\n"


def test_half_a_row_that_could_not_be_taken_back_is_taken_back_before_the_next(tmp_path: Path, monkeypatch) -> None:
    file = RowFile(tmp_path / "rows")
    file.append("one\n")

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "ftruncate", broken)
    with files_end_at(8), pytest.raises(OSError, match="too large"):
        file.append("two is too long\n")
    monkeypatch.undo()
    assert file.path.read_text() == "one\ntwo "
    file.append("three\n")
    assert file.path.read_text() == "one\nthree\n"


def test_what_is_refused_is_written_later_in_order_and_said_once(tmp_path: Path, caplog) -> None:
    path, patience = tmp_path / "rows", Patience("rows", str(tmp_path / "rows"))
    file = RowFile(path)
    with files_end_at(4):
        for line in ("1234567\n", "b\n", "c\n"):
            patience.do(lambda line=line: file.append(line))
        assert patience.waiting == 3
        assert not patience.settle()
    assert path.read_text() == ""
    patience.do(lambda: file.append("d\n"))
    assert path.read_text() == "1234567\nb\nc\nd\n"
    assert patience.settle()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, "once when it begins, once when it ends"
    assert str(path) in said[0]
    assert "File too large" in said[0]
    assert "free" in said[0]
    assert "kept in memory" in said[0]
    assert "there is room again" in said[1]


def test_an_error_of_its_own_is_raised_and_not_made_again() -> None:
    calls = []

    def write() -> None:
        calls.append(1)
        raise ValueError("a bug")

    patience = Patience("rows", "somewhere")
    with pytest.raises(ValueError, match="a bug"):
        patience.do(write)
    assert patience.settle()
    assert len(calls) == 1


def test_every_file_of_rows_waits_for_room_and_ends_whole(tmp_path: Path) -> None:
    def run(folder: Path, small: int | None) -> Fan:
        folder.mkdir()
        fan = Fan([
            JsonlSink(folder / "metrics.jsonl"),
            SummaryFileSink(folder / "summary.json"),
            HistogramSink(folder / "histograms.jsonl"),
            CsvSink(folder / "metrics.csv", {}),
        ])  # fmt: skip
        for update in range(6):
            with files_end_at(small if small and 1 <= update < 4 else 10**9):
                fan.log(update, {"a": update / 3, f"late/{update // 2}": 1.0})
                fan.histograms(update, {"hist/weight": Histogram(0.0, 1.0, (update, 2))})
                fan.summary({"updates": update})
                written = fan.sync()
                assert written is not bool(small and 1 <= update < 4)
                assert bool(fan.unwritten) is not written
        fan.close(0)
        return fan

    assert run(tmp_path / "straight", None).unwritten == []
    assert run(tmp_path / "full", 20).unwritten == []
    for name in ("metrics.jsonl", "metrics.csv", "histograms.jsonl", "summary.json"):
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert list(read_rows(tmp_path / "full" / "metrics.jsonl")) == [0, 1, 2, 3, 4, 5]
    assert len(read_histograms(tmp_path / "full", "hist/weight")) == 6


def test_rows_that_never_found_room_are_named_at_the_end(tmp_path: Path, caplog) -> None:
    fan = Fan([JsonlSink(tmp_path / "metrics.jsonl")])
    fan.log(0, {"a": 1.0})
    whole = (tmp_path / "metrics.jsonl").read_text()
    with files_end_at(len(whole) + 5):
        fan.log(1, {"a": 1.0})
        fan.close(0)
    assert fan.unwritten == ["jsonl"]
    assert "the rest is lost: jsonl" in caplog.text
    assert (tmp_path / "metrics.jsonl").read_text() == whole


def test_a_sink_from_outside_that_meets_a_full_disk_is_kept_too() -> None:
    class Theirs:
        name, pointer = "theirs", "https://somewhere"
        is_full = True

        def __init__(self) -> None:
            self.rows: list[int] = []

        def log(self, step, row):
            if self.is_full:
                raise FULL
            self.rows.append(step)

        def summary(self, values): ...

        def close(self, exit_code): ...

    theirs = Theirs()
    fan = Fan([theirs])
    fan.log(1, {})
    fan.log(2, {})
    assert fan.sync(), "it is no sink that a checkpoint waits for"
    theirs.is_full = False
    fan.close()
    assert theirs.rows == [1, 2]


def test_the_log_is_silent_on_a_full_disk_and_writes_all_of_it_later(tmp_path: Path, capfd) -> None:
    handler = LogFile(str(tmp_path / "train.log"))
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.Logger("full")
    logger.addHandler(handler)
    logger.info("one")
    with files_end_at(10):
        logger.info("a long second line")
        logger.info("three")
        assert (tmp_path / "train.log").read_text() == "one\n"
    logger.info("four")
    handler.close()
    logger.info("after the end")
    assert (tmp_path / "train.log").read_text() == "one\na long second line\nthree\nfour\n"
    assert capfd.readouterr() == ("", "")


def test_a_log_call_that_is_none_ends_neither_the_run_nor_what_waits(tmp_path: Path, capfd) -> None:
    handler = LogFile(str(tmp_path / "train.log"))
    logger = logging.Logger("odd")
    logger.addHandler(handler)
    with files_end_at(10):
        logger.info("a line that waits")
        logger.info("%d of them", "none")
    logger.info("half a character: \ud800")
    handler.close()
    assert (tmp_path / "train.log").read_text() == "a line that waits\nhalf a character: ?\n"
    assert capfd.readouterr().err.startswith("--- Loggin"), "as of every handler, cut by the same limit"


# Whole files


def test_a_file_that_did_not_fit_leaves_the_old_one_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    with files_end_at(10), pytest.raises(OSError, match="too large") as caught:
        write_atomically(path, "new " * 100)
    assert caught.value.filename == str(path), "not the temporary one"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_when_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "evaluations").mkdir()
    left = [tmp_path / ".metrics.csv.123.tmp", tmp_path / "evaluations" / ".update-000001.json.9.tmp"]
    mine = tmp_path / ".notes.tmp"
    for path in (*left, mine):
        path.touch()
    assert temporaries(tmp_path) == left[:1]
    (tmp_path / "checkpoints" / ".tmp-000001-5").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".notes.tmp", "checkpoints", "evaluations"]
    assert mine.exists()


def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_writable(tmp_path / "file" / "b")


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch) -> None:
    assert paths_in(tmp_path / "none", "*") == []
    (tmp_path / "step-2").touch()
    (tmp_path / "step-1").touch()
    (tmp_path / "other").touch()
    assert [path.name for path in paths_in(tmp_path, "step-*")] == ["step-1", "step-2"]

    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", closed)  # root could read any real one
    with pytest.raises(PermissionError):
        paths_in(tmp_path, "step-*")


def test_an_answer_that_was_paid_for_is_given_though_it_cannot_be_kept(tmp_path: Path, caplog) -> None:
    cache = AnswerCache(tmp_path / "answers")
    cache.put("a", "first", b"1")
    with files_end_at(20_000):
        for key in "bc":
            cache.put(key, "second", bytes(100_000))
    assert caplog.text.count("takes no more answers") == 1
    assert cache.get("a") == b"1"
    cache.put("d", "third", b"4")
    assert cache.get("d") == b"4"


# Checkpoints


def fits(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(1000))


def refused(folder: Path) -> None:
    fits(folder)
    raise FULL


def save(run: Path, update: int, write=fits, keep: int = 2) -> Path | None:
    return write_checkpoint(run, TrainState(update=update), write, keep=keep, size=4_100_000)


def steps(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_checkpoint_that_does_not_fit_is_said_and_leaves_nothing_but_the_older_one(tmp_path: Path, caplog) -> None:
    save(tmp_path, 1)
    assert save(tmp_path, 2, refused) is None
    assert steps(tmp_path) == ["step-000001"]
    assert checkpoint_fault(tmp_path / "checkpoints" / "step-000001") is None
    said = caplog.text
    for part in ("checkpoint 2 was not saved", str(tmp_path), "No space left", "needs about 4.1 MB", "are free"):
        assert part in said


def test_the_one_that_would_go_anyhow_goes_first_where_its_room_is_missing(tmp_path: Path) -> None:
    def fits_beside_one(folder: Path) -> None:
        if len(all_checkpoints(tmp_path)) > 1:
            raise FULL
        fits(folder)

    for update in (1, 2):
        save(tmp_path, update)
    assert save(tmp_path, 3, fits_beside_one) is not None
    assert steps(tmp_path) == ["step-000002", "step-000003"]
    assert save(tmp_path, 4, refused) is None
    assert steps(tmp_path) == ["step-000003"], "the newest stays, whatever happens"
    assert save(tmp_path, 5, refused, keep=1) is None
    assert steps(tmp_path) == ["step-000003"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_whatever_ends_a_save_leaves_nothing_half(tmp_path: Path, error: BaseException) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)

    def fails(folder: Path) -> None:
        fits(folder)
        raise error

    with pytest.raises(type(error)):
        save(tmp_path, 3, fails)
    assert steps(tmp_path) == ["step-000001", "step-000002"]


def test_a_real_policy_that_does_not_fit(tmp_path: Path, caplog) -> None:
    policy = tiny_policy(cfg := tiny_config())
    optimizer = make_optimizer(policy, cfg.trainer)
    for size in (1000, 20_000, 60_000):  # in the config, the weights, the tokenizer
        with files_end_at(size):
            assert save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=2) is None
        assert steps(tmp_path) == []
    assert caplog.text.count("was not saved") == 3
    whole = save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=2)
    assert whole is not None
    weights = (whole / "model" / "model.safetensors").stat().st_size
    assert checkpoint_bytes(policy, optimizer) == pytest.approx(3 * weights, rel=0.1)


@pytest.mark.parametrize(("free", "is_said"), [(15_000, True), (16_000, False)])
def test_room_for_the_checkpoints_is_looked_at_before_a_run(tmp_path, monkeypatch, caplog, free, is_said) -> None:
    monkeypatch.setattr("empg_cli.runs.checkpoint.free_bytes", lambda _: free)
    warn_of_little_room(tmp_path, 4000, keep=2)
    assert bool(caplog.text) is is_said
    if is_said:
        assert "about 16.0 kB (4 of 4.0 kB" in caplog.text
        assert "15.0 kB free" in caplog.text
        assert "trainer.keep_checkpoints (2)" in caplog.text


def test_checkpoints_that_are_there_need_no_room(tmp_path: Path, monkeypatch, caplog) -> None:
    save(tmp_path, 1)
    there = sum(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*") if path.is_file())
    monkeypatch.setattr("empg_cli.runs.checkpoint.free_bytes", lambda _: 16_000 - there)
    warn_of_little_room(tmp_path, 4000, keep=2)
    assert not caplog.text


def test_what_is_left_of_a_run_that_was_not_saved(tmp_path: Path) -> None:
    assert "no checkpoint" in str(not_saved(tmp_path, 4))
    save(tmp_path, 2)
    assert "the last checkpoint is step-000002, the weights after it are lost" in str(not_saved(tmp_path, 4))
    assert "the weights are saved" in str(not_saved(tmp_path, 2))
    assert "--resume" in str(not_saved(tmp_path, 2))
    assert not_saved(tmp_path, 2).exit_code == 1


def test_a_stream_that_takes_nothing_ends_no_command() -> None:
    from empg_cli.observe.terminal import Forgiving, Naming

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    assert Forgiving(Full()).write("told to nobody") == 14
    with pytest.raises(OSError, match="No space") as caught:
        Naming(Full()).write("a result")
    assert caught.value.filename == "<stdout>"
