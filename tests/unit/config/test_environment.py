"""Environment variables that are wrong, as problems under their own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.config.problems import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_MODE", "foo", "must be online, offline, disabled or dryrun"),
        ("WANDB_CONSOLE", "foo", "is refused by W&B: Input should be 'auto'"),
        ("WANDB_PROJECT", "a/b", "is refused by W&B: Invalid project name"),
        ("OMP_NUM_THREADS", "abc", "must be a whole number above 0"),
        ("OMP_NUM_THREADS", "0", "must be a whole number above 0"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon", "must be a whole number above 0"),
        ("HF_ENDPOINT", "foo", "must begin with http"),
        ("HF_HOME", "FILE", "must be a folder"),
        ("XDG_CACHE_HOME", "FILE", "must be a folder"),
    ],
)
def test_a_wrong_variable_is_a_problem_with_its_name(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "FILE").touch()
    monkeypatch.setenv(name, str(tmp_path / "FILE") if value == "FILE" else value)
    with pytest.raises(ConfigError) as raised:
        load(["logger.wandb.mode=auto"])
    (problem,) = raised.value.problems
    assert problem.key == name
    assert said in problem.what


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WANDB_MODE", "foo", ["logger.wandb.mode=offline"]),  # what the config names wins
        ("WANDB_CONSOLE", "foo", ["logger.wandb.mode=disabled"]),
        ("WANDB_MODE", "", []),
        ("OMP_NUM_THREADS", "4,2", []),
        ("OMP_NUM_THREADS", "", []),
        ("HF_ENDPOINT", "https://hub.example", []),
    ],
)
def test_what_is_not_read_or_right_is_left_alone(
    name: str, value: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    load(words)


def test_nothing_of_wandb_is_judged_where_a_variable_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "foo")
    load(["logger.wandb.mode=auto"])
    with pytest.raises(ConfigError, match="WANDB_CONSOLE"):
        load(["logger.wandb.mode=offline"])


def test_evaluations_do_not_ask_for_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "foo")
    load(["policy=expert"], "eval")


@pytest.mark.parametrize("value", ["/no/such/data", ""])
def test_data_that_a_variable_names_and_that_is_not_there(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", value)
    with pytest.raises(ConfigError, match=r"benchmark\.data_dir: does not exist .*ALFWORLD_DATA in the environment"):
        load([])
