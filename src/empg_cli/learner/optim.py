"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from empg_cli.config.trainer import Trainer
from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.model.policy import Policy

FINAL_FRACTION = 0.1
"""Where `linear` and `cosine` end, as a fraction of the peak."""


def make_optimizer(policy: Policy, trainer: Trainer) -> torch.optim.Optimizer:
    """The optimiser of the updates.

    Raises:
        UserError: `trainer.optimizer` needs a package that is not installed.
    """
    return adamw(
        policy, trainer.optimizer, lr=trainer.lr, betas=(0.9, 0.999), weight_decay=trainer.weight_decay, fused=True
    )


def adamw(
    policy: Policy,
    kind: Literal["adamw", "adamw8bit"],
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101) on what a policy trains, its steps followed by the policy's passes.

    adamw8bit keeps the moments of a tensor of 4,096 numbers or more in 8 bits, in bitsandbytes' dynamic data type with
    a scale for each 256 of them (arXiv 2110.02861); smaller tensors have those of AdamW.

    Args:
        fused: read by adamw: one kernel in place of several, which rounds differently.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    optimizer: torch.optim.Optimizer
    if kind == "adamw":
        optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)
    else:
        package = bitsandbytes()
        optimizer = package.optim.AdamW8bit(policy.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)
    policy.follow(optimizer)
    return optimizer


def bitsandbytes() -> Any:
    """The package behind trainer.optimizer=adamw8bit.

    Raises:
        UserError: it is not installed.
    """
    try:
        import bitsandbytes
    except ImportError:
        command = install_command("bitsandbytes")
        raise UserError(f"trainer.optimizer=adamw8bit needs the package bitsandbytes: {command}") from None
    return bitsandbytes


def learning_rate(trainer: Trainer, update: int) -> float:
    """Learning rate of update 0, 1, ...: linear warm-up, then constant or decaying to a tenth at the last update."""
    if update < trainer.lr_warmup:
        return trainer.lr * (update + 1) / trainer.lr_warmup
    span = max(trainer.updates - 1 - trainer.lr_warmup, 1)
    done = min((update - trainer.lr_warmup) / span, 1.0)
    match trainer.lr_schedule:
        case "constant":
            return trainer.lr
        case "linear":
            return trainer.lr * (1 - (1 - FINAL_FRACTION) * done)
        case "cosine":
            return trainer.lr * (FINAL_FRACTION + (1 - FINAL_FRACTION) * 0.5 * (1 + math.cos(math.pi * done)))
