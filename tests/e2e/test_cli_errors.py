"""Mistakes on the command line: exit code 2, one message, no traceback, no folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Empg = Callable[..., Result]


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["benchmark=alfwrld"], ["benchmark", "alfworld"]),
        (["algo.grp_size=4"], ["algo.grp_size", "algo.group_size"]),
        (["+algo.grp_size=4"], ["algo.grp_size", "algo.group_size"]),
        (["algo.group_size=1"], ["algo.group_size", "greater than or equal to 2", "got 1"]),
        (["trainer.lr=-1"], ["trainer.lr", "greater than 0", "got -1"]),
        (["algo=grpo", "algo.credit.zeta=0.1"], ["algo.credit.zeta", "algo.credit.kind=none", "algo=empg"]),
        (["benchmark.data_dir=/no/such/data"], ["benchmark.data_dir", "does not exist", "/no/such/data"]),
        (["-m", "seed=1,2", "algo.group_size=8,1"], ["algo.group_size", "in the job: seed=1 algo.group_size=1"]),
        (["-m", "seed=1,2", "--cfg", "job"], ["--multirun", "--cfg"]),
        (["seed=1,2"], ["seed", "-m"]),
        (["--config-dir", "nowhere"], ["--config-dir", "nowhere"]),
        (["--resume", "nowhere"], ["nowhere", "no such folder"]),
        (["hydra/launcher=ray"], ["hydra/launcher", "[ray]"]),
        (["trainer.lr=-1", "benchmark=alfwrld", "+x=1"], ["trainer.lr", "benchmark", "x: unknown key"]),
    ],
)
def test_a_mistake_ends_in_one_message_and_leaves_nothing(empg: Empg, words: list[str], answers: list[str]) -> None:
    result = empg("train", *words, code=2)
    for answer in answers:
        assert answer in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert list(Path().iterdir()) == []


def test_eval_answers_in_the_same_way(empg: Empg) -> None:
    result = empg("eval", "policy=experto", "run=/no/such/run", code=2)
    assert "no such folder" in result.stderr
    result = empg("eval", "policy=experto", "benchmark.split=test", code=2)
    assert "policy" in result.stderr
    assert "valid_unseen" in result.stderr
    assert list(Path().iterdir()) == []


def test_raw_hydra_errors_on_request(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    result = empg("train", "--cfg", "job", "nokey=1", code=1)
    assert type(result.exception).__name__ == "ConfigCompositionException"
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    assert "nokey" in empg("train", "--cfg", "job", "nokey=1", code=2).stderr
