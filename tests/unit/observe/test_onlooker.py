"""Ranks other than the first have an onlooker in the place of an observer: the loop cannot tell them apart."""

from __future__ import annotations

import inspect
import logging
import re
import socket
import time
from pathlib import Path

import pytest

from empg_cli.invocation import CALLED_IN
from empg_cli.model.memory import OutOfMemory
from empg_cli.observe.health import HealthStop
from empg_cli.observe.health_watch import HealthWatch
from empg_cli.observe.observer import Observer
from empg_cli.observe.onlooker import Onlooker, onlooking
from empg_cli.pulse import phase, silence_s, waiting
from empg_cli.ranks import Ended
from empg_cli.runs.checkpoint import TrainState
from tests.support.tiny import tiny_config


def signatures(kind: type, names: list[str]) -> dict[str, list[tuple[str, object]]]:
    return {
        name: [(one.name, one.kind) for one in inspect.signature(getattr(kind, name)).parameters.values()]
        for name in names
    }


def test_it_is_called_as_an_observer_is() -> None:
    names = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")]
    assert signatures(Onlooker, names) == signatures(Observer, names)
    watching = ["judge_first_batch", "watch"]
    assert signatures(type(Onlooker().health), watching) == signatures(HealthWatch, watching)


def test_it_says_where_the_rank_is_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = TrainState(update=3)
    with onlooking(tiny_config(), tmp_path, 1) as observer:
        with observer.timed("logprob"):
            assert phase() == "logprob"
        observer.progress("rollout")(1, 2)
        assert phase() == "rollout"
        assert silence_s() < 10
        observer.log(state, {"actor/entropy": 1.0})
        observer.finish(state)
        observer.raise_if_unsaved(state, is_saved=False)
        assert observer.sync(state)
        assert not observer.must_stop
        with pytest.raises(Ended, match="after update 3: no server") as ended:
            observer.raise_gone(state, "no server")
        assert ended.value.exit_code == HealthStop.exit_code
    assert list(tmp_path.iterdir()) == []


def test_it_says_on_which_rank_memory_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CALLED_IN, raising=False)
    cfg = tiny_config("dist=node", "dist.processes=2", "trainer.minibatches=1")
    with (
        pytest.raises(OutOfMemory) as ended,
        onlooking(cfg, tmp_path / "run", 1) as observer,
        observer.timed("update"),
    ):
        raise MemoryError("no room")
    first, *_, last = str(ended.value).splitlines()
    assert first == f"out of memory on rank 1 ({socket.gethostname()}) in phase update: no room"
    assert last.endswith(f"train --resume {tmp_path / 'run'} KEY=VALUE")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bug"), onlooking(tiny_config(), tmp_path, 1):
        raise ValueError("a bug")


def test_a_silence_of_the_rank_has_a_file_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with onlooking(tiny_config("trainer.watchdog=0.2"), tmp_path, 3) as observer, observer.timed("update"):
        time.sleep(0.9)
    assert [path.name for path in tmp_path.iterdir()] == ["ranks"]
    said = (tmp_path / "ranks" / "hang-rank-3.txt").read_text()
    assert re.match(r"rank 3: no turn and no micro-batch for \d+ s in phase update\n", said)
    assert "in test_a_silence_of_the_rank_has_a_file_of_its_own" in said
    assert "hang-rank-3.txt" in caplog.text


def test_a_rank_that_waits_for_others_is_not_silent(tmp_path: Path) -> None:
    with onlooking(tiny_config("trainer.watchdog=0.1"), tmp_path, 1), waiting():
        time.sleep(0.4)
    assert list(tmp_path.iterdir()) == []
