"""What the first rank alone decides ends all of them: it says why, the others leave with its exit code."""

from __future__ import annotations

from typing import Any

import pytest

from empg_cli.errors import UserError
from empg_cli.observe.health import HealthStop
from empg_cli.ranks import ALONE, Ended, RankLost, Ranks

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
