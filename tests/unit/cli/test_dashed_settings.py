"""`--key=value`, as the agent of a W&B sweep writes settings."""

from __future__ import annotations

import pytest

from empg_cli.cli.flags import _settings_without_dashes

FLAGS = {"--resume", "--multirun", "-m", "--cfg", "--restart"}


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("--trainer.lr=1e-5", "trainer.lr=1e-5"),
        ("--algo.credit.zeta=0.05", "algo.credit.zeta=0.05"),
        ("--algo=grpo", "algo=grpo"),
        ("--seed=3", "seed=3"),
        ("--resume=runs/a", "--resume=runs/a"),  # a flag of ours, though there is such a setting
        ("--cfg=job", "--cfg=job"),
        ("--trainer.lrr=1", "--trainer.lrr=1"),  # no setting: refused as an option that there is not
        ("--trainer.lr", "--trainer.lr"),
        ("trainer.lr=1e-5", "trainer.lr=1e-5"),
    ],
)
def test_a_setting_loses_its_dashes_and_a_flag_keeps_them(word: str, becomes: str) -> None:
    assert _settings_without_dashes([word, "-m"], FLAGS) == [becomes, "-m"]


def test_behind_two_dashes_nothing_is_touched() -> None:
    assert _settings_without_dashes(["--seed=1", "--", "--seed=2"], FLAGS) == ["seed=1", "--", "--seed=2"]
