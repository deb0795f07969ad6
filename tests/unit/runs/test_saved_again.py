"""A checkpoint that is saved a second time: whatever ends the save, one of the two is there at the next start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from empg_cli.runs.checkpoint import TrainState, all_checkpoints, put_back, remove_leftovers, write_checkpoint
from empg_cli.runs.which_checkpoint import find_checkpoint
from tests.unit.runs.test_rewind import cfg, made, opened, step  # noqa: F401 (a fixture)


def saved(run: Path, content: str) -> Path | None:
    return write_checkpoint(run, TrainState(5), lambda path: (path / "who").write_text(content) and None, keep=3)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def between(monkeypatch: pytest.MonkeyPatch, what: BaseException | None) -> None:
    """The rename that puts the new one in its place raises; None, the process is killed there."""
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if not self.name.startswith(".tmp-") or Path(target).name.startswith("."):
            return real(self, target)
        if what is None:
            os.kill(os.getpid(), signal.SIGKILL)
        assert what is not None
        raise what

    monkeypatch.setattr(Path, "rename", rename)


def killed_in_between(run: Path, monkeypatch: pytest.MonkeyPatch, update: int = 5) -> None:
    if not (child := os.fork()):
        between(monkeypatch, None)
        write_checkpoint(run, TrainState(update), lambda path: (path / "who").write_text("new") and None, keep=9)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_between_the_renames_the_first_one_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "old")
    killed_in_between(tmp_path, monkeypatch)
    assert all_checkpoints(tmp_path) == []
    put_back(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["step-000005"]
    assert (find_checkpoint(tmp_path) / "who").read_text() == "old"


def test_the_next_start_goes_on_from_it(cfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    run = made(cfg, tmp_path / "run")
    killed_in_between(run, monkeypatch, update=4)
    assert opened(cfg, run, "auto").resume_from == step(run, 4)


@pytest.mark.parametrize("what", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_between_the_renames_puts_it_back(
    what: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, "old")
    with monkeypatch.context() as patch:
        between(patch, what)
        if isinstance(what, OSError):
            assert saved(tmp_path, "new") is None, "the disk has refused it"
        else:
            with pytest.raises(KeyboardInterrupt):
                saved(tmp_path, "new")
    assert names(tmp_path) == ["step-000005"]
    assert (find_checkpoint(tmp_path) / "who").read_text() == "old"


def test_what_another_save_has_left_is_in_nobodys_way(tmp_path: Path) -> None:
    saved(tmp_path, "old")
    for name in (".tmp-old-step-000005", ".aside-step-000005"):  # of a kill behind the second rename
        (tmp_path / "checkpoints" / name / "model").mkdir(parents=True)
    assert saved(tmp_path, "new") is not None
    assert (find_checkpoint(tmp_path) / "who").read_text() == "new"
    assert names(tmp_path) == [".tmp-old-step-000005", "step-000005"]


def test_a_file_that_cannot_be_deleted_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stays(*_: object, **__: object) -> None:
        pass

    saved(tmp_path, "old")
    monkeypatch.setattr("empg_cli.runs.checkpoint.shutil.rmtree", stays)
    for content in ("second", "third"):
        assert saved(tmp_path, content) is not None
        assert (find_checkpoint(tmp_path) / "who").read_text() == content
