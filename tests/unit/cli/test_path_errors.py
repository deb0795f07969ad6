"""Files and folders that cannot be used: one sentence each, with the right exit code; bugs keep their traceback."""

from __future__ import annotations

import errno
import io
import logging.config
import os
import sys
from pathlib import Path

import pytest
import typer

from empg_cli.cli.flags import user_border
from empg_cli.cli.path_errors import DiskRefuses, PathError, path_border, path_error, stdout_border, writing
from empg_cli.errors import UserError


def said(error: BaseException) -> tuple[str, int]:
    found = path_error(error)
    assert found is not None
    return str(found), found.exit_code


@pytest.mark.parametrize(
    ("number", "parts", "code"),
    [
        (errno.EACCES, ["Permission denied", "belongs to", "you are"], 2),
        (errno.EPERM, ["not permitted", "belongs to"], 2),
        (errno.EROFS, ["read-only", "run_dir=DIR", "--out DIR"], 2),
        (errno.ENOENT, ["no such file"], 2),
        (errno.EISDIR, ["that is a folder"], 2),
        (errno.ENAMETOOLONG, ["too long"], 2),
        (errno.ELOOP, ["circle"], 2),
        (errno.EMFILE, ["ulimit -n"], 2),
        (errno.ESTALE, ["network file system"], 2),
        (errno.ENOSPC, ["No space left", "free there", "make room"], 1),
        (errno.EDQUOT, ["quota"], 1),
        (errno.EFBIG, ["too large"], 1),
        (errno.EIO, ["Input/output"], 1),
    ],
)
def test_what_is_said_of_a_path(number: int, parts: list[str], code: int, tmp_path: Path) -> None:
    text, exit_code = said(OSError(number, os.strerror(number), str(tmp_path / "x")))
    for part in (str(tmp_path / "x"), *parts):
        assert part in text
    assert exit_code == code


def test_the_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PathError, match=f"{tmp_path}/file is a file, not a folder"), path_border():
        (tmp_path / "file" / "run" / "x").mkdir(parents=True)


def test_what_logging_says_of_its_file_is_about_the_file(tmp_path: Path) -> None:
    file = {"class": "logging.FileHandler", "filename": str(tmp_path / "none" / "train.log")}
    with pytest.raises(PathError, match=r"none/train\.log: no such file"), path_border():
        logging.config.dictConfig({"version": 1, "handlers": {"file": file}})


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "Broken pipe", "<stdout>"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        OSError(errno.EADDRINUSE, "Address already in use"),
        OSError("Error no file named pytorch_model.bin"),
        RuntimeError("shape mismatch"),
        ValueError("a bug"),
    ],
)
def test_what_is_about_no_path_stays_what_it_is(error: Exception) -> None:
    assert path_error(error) is None
    with pytest.raises(type(error)), path_border():
        raise error


def test_a_library_that_names_no_file(tmp_path: Path) -> None:
    tantivy = ValueError(
        "An error occurred in a thread: 'An index writer was killed.. (io::Error most likely) or panicked.'"
    )
    with pytest.raises(DiskRefuses, match=str(tmp_path)), writing(tmp_path):
        raise tantivy
    assert said(tantivy)[1] == 1
    with pytest.raises(ValueError, match="a bug"), writing(tmp_path):
        raise ValueError("a bug")


def test_a_user_without_a_home() -> None:
    with pytest.raises(PathError, match="no such home folder"), path_border():
        Path("~nobody-has-this-name/x").expanduser()


def test_a_sentence_stays_the_one_it_is() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="mine"), path_border():
        raise UserError("mine") from full


class Refusing(io.StringIO):
    """Takes what is written, and cannot pass it on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("says", [lambda: None, lambda: print("x", flush=True)])
def test_results_that_standard_output_did_not_take_are_a_failure(monkeypatch, capsys, says) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing(errno.ENOSPC))
    with pytest.raises(typer.Exit) as caught, user_border():
        says()
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == (
        "error: standard output cannot be written: No space left on device; what was to be shown is lost\n"
    )
    sys.stdout.flush()  # what Python does at its end


def test_a_reader_that_has_left_is_for_typer_to_handle(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", refusing := Refusing(errno.EPIPE))
    with pytest.raises(BrokenPipeError), stdout_border():
        pass
    assert sys.stdout is refusing
