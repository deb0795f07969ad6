"""Log lines of ours and of libraries: no secret of theirs reaches a file or the screen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empg_cli.cli.ranks.ends import plain_lines
from empg_cli.observe import console
from empg_cli.observe.clocks import Clocks
from empg_cli.observe.console import ConsoleHandler
from empg_cli.observe.log_file import LogFile

ADDRESS = "http://bob:pw12345678@127.0.0.1:9"


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    """That of somebody else's code."""
    logger = logging.Logger("library")
    yield logger
    for handler in logger.handlers:
        handler.close()


def speak(logger: logging.Logger) -> None:
    logger.warning("retrying %s", ADDRESS)
    try:
        raise ConnectionError(f"no answer from {ADDRESS}")
    except ConnectionError:
        logger.exception("gave up")


def test_in_a_file(library: logging.Logger, tmp_path: Path) -> None:
    library.addHandler(LogFile(str(tmp_path / "train.log")))
    speak(library)
    text = (tmp_path / "train.log").read_text()
    assert "retrying http://***@127.0.0.1:9" in text and "no answer from http://***@127.0.0.1:9" in text
    assert "pw12345678" not in text and "Traceback" in text


@pytest.mark.parametrize("is_watched", [False, True])
def test_on_the_console(
    library: logging.Logger, is_watched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "is_watched", lambda: is_watched)
    console.get_console.cache_clear()
    library.addHandler(ConsoleHandler())
    speak(library)
    console.get_console.cache_clear()
    said = "".join(capsys.readouterr().err.split())
    assert "retryinghttp://***@127.0.0.1:9" in said and "noanswerfromhttp://***@127.0.0.1:9" in said
    assert "pw12345678" not in said and "Traceback" in said


def test_of_ranks_that_do_not_speak_to_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **given: made.update(given))
    plain_lines()
    (handler,) = made["handlers"]
    handler.setStream(sys.stderr)
    logger = logging.Logger("library")
    logger.addHandler(handler)
    speak(logger)
    assert "pw12345678" not in capsys.readouterr().err


def test_the_first_row_of_a_process_counts_its_own_tokens() -> None:
    row = Clocks(tokens=100).row(106)
    assert row["perf/throughput"] * row["perf/time_per_step"] == pytest.approx(6)
