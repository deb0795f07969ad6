"""An optimiser's state in parts: each rank writes its own, and any number of ranks can read them, one included.

PyTorch's distributed checkpoint (DCP) in safetensors files; nothing in them is pickled.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import is_initialized
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from empg_cli.disk import refusal
from empg_cli.model.policy import Policy

FACTS = "optimizer.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of AdamW: tensors that lie as their parameter does."""


def save_parts(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """A common point of all ranks, at which each holds its part.

    Raises:
        OSError: on every rank, where the disk has refused the part of one.
    """
    state = {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in _named(policy)
        if parameter in optimizer.state
        for moment in MOMENTS
    }
    try:
        if state:
            save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        refusals = [failure for failure, _ in error.failures.values() if refusal(failure)]
        if len(refusals) == len(error.failures):
            raise refusals[0] from None
        raise


def save_facts(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """What is not in the parts, since it is the same for all of them."""
    folder.mkdir(exist_ok=True)
    (folder / FACTS).write_text(json.dumps({"steps": _steps(optimizer)}))


def load_parts(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """A common point of all ranks."""
    steps = float(json.loads((folder / FACTS).read_text(encoding="utf-8"))["steps"])
    if not steps:
        return
    state: dict[str, Any] = {
        f"{name}.{moment}": torch.zeros_like(parameter, requires_grad=False)
        for name, parameter in _named(policy)
        for moment in MOMENTS
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is meant to read it
        load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not is_initialized())
    for name, parameter in _named(policy):
        moments = {moment: state[f"{name}.{moment}"] for moment in MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(steps, device=policy.device), **moments}


def _named(policy: Policy) -> list[tuple[str, Tensor]]:
    return [(name, one) for name, one in policy.trained.named_parameters() if one.requires_grad]


def _steps(optimizer: torch.optim.Optimizer) -> float:
    """That the optimiser has taken, each with all parameters."""
    taken = {float(one["step"]) for one in optimizer.state.values()}
    assert len(taken) <= 1, "a step moves every parameter"
    return taken.pop() if taken else 0.0
