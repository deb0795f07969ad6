"""The best checkpoint stays, can be asked for, and is not deleted while somebody reads it."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from empg_cli.runs.checkpoint import TrainState, all_checkpoints, best_checkpoint, is_best_yet, write_checkpoint
from empg_cli.runs.hold import Hold
from empg_cli.runs.manifest import CheckpointError
from empg_cli.runs.which_checkpoint import hold_checkpoint


def evaluated(run: Path, update: int, rate: float, n: int = 4) -> None:
    (run / "evaluations").mkdir(exist_ok=True)
    content = {"update": update, "total": {"n": n, "success_rate": rate}}
    (run / "evaluations" / f"update-{update:06d}.json").write_text(json.dumps(content))


def saved(run: Path, update: int, keep: int = 1) -> None:
    write_checkpoint(run, TrainState(update), lambda folder: None, keep=keep)


def kept(run: Path) -> list[int]:
    return [int(path.name[-6:]) for path in all_checkpoints(run)]


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    evaluated(tmp_path, 0, 0.9)  # before training: there is no checkpoint of it
    for update, rate in ((1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1), (5, 0.6), (6, 0.0)):
        evaluated(tmp_path, update, rate)
        saved(tmp_path, update)
    assert kept(tmp_path) == [5, 6]
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert str(best) == "step-000005, 60.0% after update 5"


def test_of_equal_ones_the_earlier(tmp_path: Path) -> None:
    for update in (1, 2, 3, 4):
        evaluated(tmp_path, update, 0.5)
        saved(tmp_path, update)
    assert kept(tmp_path) == [1, 4]


def test_an_evaluation_that_is_the_best_so_far_is_worth_a_checkpoint(tmp_path: Path) -> None:
    evaluated(tmp_path, 2, 0.0)
    assert is_best_yet(tmp_path, 2), "there is none yet"
    saved(tmp_path, 2)
    for rate, is_best in ((0.0, False), (0.1, True)):
        evaluated(tmp_path, 3, rate)
        assert is_best_yet(tmp_path, 3) == is_best
    evaluated(tmp_path, 4, 1.0, n=0)  # the environment failed every time
    assert not is_best_yet(tmp_path, 4)
    assert not is_best_yet(tmp_path, 9), "nothing was evaluated"


def test_an_unreadable_evaluation_is_no_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for update, rate in ((1, 0.2), (2, 0.1)):
        evaluated(tmp_path, update, rate)
        saved(tmp_path, update, keep=3)
    (tmp_path / "evaluations" / "update-000001.json").write_text("{")
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert best.update == 2
    assert "update-000001.json is no evaluation" in caplog.text


def test_a_checkpoint_is_asked_for_by_what_it_is(tmp_path: Path) -> None:
    for update, rate in ((1, 0.2), (2, 0.5), (3, 0.1)):
        evaluated(tmp_path, update, rate)
        saved(tmp_path, update, keep=9)
    for which, name in (("best", "2"), ("last", "3"), (None, "3"), (1, "1")):
        with hold_checkpoint(tmp_path, which) as held:
            assert held.checkpoint.name == f"step-00000{name}"
    with pytest.raises(CheckpointError, match="no checkpoint of update 7: there are those of 1, 2, 3"):
        hold_checkpoint(tmp_path, 7)
    with pytest.raises(CheckpointError, match=r"checkpoint=best is not read when .* is a checkpoint already"):
        hold_checkpoint(tmp_path / "checkpoints" / "step-000001", "best")
    (tmp_path / "checkpoints" / "step-000002" / "state.json").write_text("")
    with pytest.raises(CheckpointError, match=r"step-000002 is damaged: state\.json has 0 bytes"):
        hold_checkpoint(tmp_path, "best")


def test_which_is_best_is_not_told_by_changed_evaluations(tmp_path: Path) -> None:
    for update, rate in ((1, 0.2), (2, 0.5)):
        evaluated(tmp_path, update, rate)
        saved(tmp_path, update, keep=9)
    evaluated(tmp_path, 1, 0.7)
    with pytest.raises(CheckpointError, match=r"best cannot be told:\n  evaluations/update-000001\.json is not what"):
        hold_checkpoint(tmp_path, "best")


def test_a_run_without_evaluations_has_no_best(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    with pytest.raises(CheckpointError, match="no checkpoint that it has evaluated: there are those of 1"):
        hold_checkpoint(tmp_path, "best")
    with pytest.raises(CheckpointError, match="no checkpoint of update 3: it has none"):
        hold_checkpoint(tmp_path / "nothing", 3)


def test_what_is_read_is_deleted_at_the_next_save(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    with Hold(tmp_path / "checkpoints" / "step-000001"), Hold(tmp_path / "checkpoints" / "step-000001"):
        saved(tmp_path, 2)
        assert kept(tmp_path) == [1, 2]
    saved(tmp_path, 3)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000003"]


def test_one_that_is_being_deleted_cannot_be_held(tmp_path: Path) -> None:
    from empg_cli.runs.hold import nobody_reads

    saved(tmp_path, 1)
    checkpoint = tmp_path / "checkpoints" / "step-000001"
    with nobody_reads(checkpoint) as is_free:
        assert is_free
        with pytest.raises(CheckpointError, match="being deleted by its run: ask again"):
            Hold(checkpoint)
    Hold(checkpoint).release()


def over_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """flock(2), "NFS details": made of fcntl's locks there, so that an exclusive one needs a file open for writing."""
    real = fcntl.flock

    def flock(file: IO[bytes], operation: int) -> None:
        if operation & fcntl.LOCK_EX and not file.writable():
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def not_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes say nothing to root."""
    real = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **more: Any) -> IO[Any]:
        if self.name == "manifest.json" and "+" in mode:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("there", [over_nfs, not_to_be_written])
def test_what_is_read_is_not_deleted(
    there: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there(monkeypatch)
    saved(tmp_path, 1)
    with Hold(tmp_path / "checkpoints" / "step-000001"):
        saved(tmp_path, 2)
        assert kept(tmp_path) == [1, 2]
    saved(tmp_path, 3)
    assert kept(tmp_path) == [3]


def test_where_nobody_can_tell_who_reads_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over_nfs(monkeypatch)
    not_to_be_written(monkeypatch)
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    assert kept(tmp_path) == [1, 2]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_there_are_no_locks_nobody_waits(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    saved(tmp_path, 1)
    with Hold(tmp_path / "checkpoints" / "step-000001"):
        saved(tmp_path, 2)
    assert kept(tmp_path) == [2]


def test_a_newer_one_that_comes_while_others_go_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only checkpoint seen is rotated away between looking and opening."""
    from empg_cli.runs import which_checkpoint

    saved(tmp_path, 1)
    real, looks = which_checkpoint.all_checkpoints, iter(range(9))

    def looked(run_dir: Path) -> list[Path]:
        found = real(run_dir)
        if next(looks) == 0:
            saved(tmp_path, 2)
        return found

    monkeypatch.setattr(which_checkpoint, "all_checkpoints", looked)
    with hold_checkpoint(tmp_path) as held:
        assert held.checkpoint.name == "step-000002"
