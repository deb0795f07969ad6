"""What the first rank alone decides ends all of them: it says why, the others leave with its exit code."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.errors import UserError
from empg_cli.experiment import Experiment
from empg_cli.observe.health import HealthStop
from empg_cli.ranks import ALONE, Ended, RankLost, Ranks
from empg_cli.runs.checkpoint import TrainState

told: list[Any] = []


class First(Ranks):
    def of_first(self, value: Any) -> Any:
        told.append(value)
        return value


class Other(Ranks):
    """Is told what the first has told last."""

    def of_first(self, value: Any) -> Any:
        assert value is None
        return told[-1]


class Left(Ranks):
    """Of which the others are gone."""

    def of_first(self, value: Any) -> Any:
        raise RankLost("gone")


FIRST, OTHER = First(0, 2), Other(1, 2)


def test_a_stop_of_the_first_is_the_end_of_all() -> None:
    with pytest.raises(HealthStop, match="no signal"), FIRST.first_decides():
        raise HealthStop("no signal")
    passed = []
    with pytest.raises(Ended, match="no signal") as ended, OTHER.first_decides():
        passed.append("the block")
    assert passed and ended.value.exit_code == HealthStop.exit_code == 3


def test_where_nothing_is_wrong_all_go_on() -> None:
    for ranks in (FIRST, OTHER, ALONE):
        with ranks.first_decides():
            pass
    assert told[-1] is None


@pytest.mark.parametrize("ranks", [ALONE, Left(0, 2)], ids=["one process", "the others are gone"])
def test_its_words_are_never_lost(ranks: Ranks) -> None:
    with pytest.raises(UserError, match="the disk is full"), ranks.first_decides():
        raise UserError("the disk is full")


@pytest.mark.parametrize("is_there", [True, False])
def test_whether_a_state_is_saved_all_hear_from_the_first(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a network a rank may see a checkpoint later than the one that has written it."""

    class AsTold(Ranks):
        def of_first(self, value: Any) -> Any:
            return First.of_first(FIRST, value) if self.is_first else told[-1]

    nothing: Any = None
    saving: list[int] = []
    told[:] = [True]
    for rank in (0, 1):
        monkeypatch.setattr("empg_cli.experiment.is_saved", lambda *_, rank=rank: is_there == (rank == 0))
        learner: Any = SimpleNamespace(is_whole=True, save=lambda *_, rank=rank: saving.append(rank))
        observer: Any = SimpleNamespace(sync=lambda _: True)
        ranks = AsTold(rank, 2)
        Experiment(
            nothing, learner, nothing, observer, TrainState(2), nothing, tmp_path, nothing, nothing, ranks
        ).save_what_stands()
    assert saving == ([] if is_there else [0, 1])
