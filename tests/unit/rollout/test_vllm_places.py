"""Which GPUs servers of vLLM get beside the ranks that learn, counted without any GPU."""

from __future__ import annotations

import pytest
import torch

from empg_cli.config import load
from empg_cli.config.rollout import Vllm
from empg_cli.errors import UserError
from empg_cli.rollout.vllm.opening import _gpus

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


def settings(*words: str) -> Vllm:
    vllm = ("rollout.engine=vllm", "trainer.old_logprobs=recompute")
    return load([*vllm, *(f"rollout.vllm.{word}" for word in words)]).rollout.vllm


def test_a_cpu_has_one_server_or_as_many_as_are_asked_for() -> None:
    assert _gpus(settings(), torch.device("cpu"), shares=False, ranks=2) == [[]]
    assert _gpus(settings("servers=3"), torch.device("cpu"), shares=False, ranks=1) == [[], [], []]


def test_servers_that_share_are_where_ranks_are() -> None:
    """On any other GPU nobody has weights that a server there could map."""
    assert _gpus(settings(), GPU, shares=True, ranks=1) == [[0]]
    assert _gpus(settings(), GPU, shares=True, ranks=4) == [[0], [1], [2], [3]]
    assert _gpus(settings("gpus_per_server=2"), GPU, shares=True, ranks=8) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(UserError, match="1 servers of 2 GPUs do not fit on the 1 that the ranks have"):
        _gpus(settings("gpus_per_server=2"), GPU, shares=True, ranks=1)


def test_servers_of_their_own_are_behind_the_ranks() -> None:
    assert _gpus(settings(), GPU, shares=False, ranks=5) == [[5], [6], [7]]
    assert _gpus(settings("gpus_per_server=2"), GPU, shares=False, ranks=4) == [[4, 5], [6, 7]]
    assert _gpus(settings("servers=1"), GPU, shares=False, ranks=4) == [[4]]
    with pytest.raises(UserError, match="do not fit on the 0 that are behind those of the ranks"):
        _gpus(settings(), GPU, shares=False, ranks=8)


def test_a_learner_on_another_gpu_than_the_first_is_refused() -> None:
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
        _gpus(settings(), torch.device("cuda", 3), shares=True, ranks=1)
