"""Ranks other than the first have an onlooker in the place of an observer: the loop cannot tell them apart."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from empg_cli.observe.health import HealthStop
from empg_cli.observe.health_watch import HealthWatch
from empg_cli.observe.observer import Observer
from empg_cli.observe.onlooker import Onlooker, onlooking
from empg_cli.pulse import phase, silence_s
from empg_cli.ranks import Ended
from empg_cli.runs.checkpoint import TrainState


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
    with onlooking() as observer:
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
