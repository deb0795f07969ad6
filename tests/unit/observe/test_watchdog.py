"""A hang is said once, with its phase and the stacks of all threads; work that goes on is not."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from empg_cli.observe.watchdog import FILE, Watchdog
from empg_cli.pulse import beat, enter, is_waiting, looking, silence_s, waiting


def hanging_here(seconds: float) -> None:
    time.sleep(seconds)


def test_a_silence_names_the_phase_and_shows_where_it_hangs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Watchdog(0.2, tmp_path):
        enter("rollout")
        hanging_here(0.9)
    said = (tmp_path / FILE).read_text()
    assert said.count("in phase rollout") == 1, "once a silence"
    assert "in hanging_here" in said
    assert "no turn and no micro-batch for" in caplog.text


def test_each_silence_is_said(tmp_path: Path) -> None:
    enter("loading")
    with Watchdog(0.2, tmp_path):
        for _ in range(2):
            hanging_here(0.4)
            beat()
            time.sleep(0.1)
    assert (tmp_path / FILE).read_text().count("in phase loading") == 2


def test_work_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    with Watchdog(0.5, tmp_path):
        for _ in range(20):
            beat()
            time.sleep(0.05)
    assert not (tmp_path / FILE).exists()


def test_to_ask_others_how_far_they_are_is_no_work() -> None:
    beat()
    time.sleep(0.05)
    with looking(), waiting():
        assert is_waiting()
        assert silence_s() >= 0.05
    assert silence_s() >= 0.05
    with waiting():
        assert silence_s() < 0.05


def test_0_watches_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    with Watchdog(0, tmp_path):
        assert threading.active_count() == before


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with Watchdog(0.1, tmp_path / "gone"):
        hanging_here(0.4)
    assert "could not be written" in caplog.text


def test_it_leaves_when_the_run_ends(tmp_path: Path) -> None:
    with Watchdog(60, tmp_path):
        pass
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]
