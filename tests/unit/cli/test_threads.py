"""What `empg doctor` advises about threads."""

from __future__ import annotations

import torch

from empg_cli.cli.threads import ThreadSpeed, measure_threads


def test_more_threads_are_advised_only_when_they_are_clearly_faster() -> None:
    assert ThreadSpeed(one_s=0.010, all_s=0.004, threads=8).advised == 8  # 2.5 times
    assert ThreadSpeed(one_s=0.010, all_s=0.009, threads=8).advised == 1  # 1.1 times
    assert ThreadSpeed(one_s=0.010, all_s=0.500, threads=8).advised == 1  # other work held the cores


def test_measuring_leaves_the_setting_of_torch_alone() -> None:
    before = torch.get_num_threads()
    speed = measure_threads(before + 1)
    assert torch.get_num_threads() == before
    assert speed.threads == before + 1
    assert speed.advised in (1, before + 1)
