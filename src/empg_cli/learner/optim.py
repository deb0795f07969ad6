"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math

import torch

from empg_cli.config.trainer import Trainer
from empg_cli.model.policy import Policy

FINAL_FRACTION = 0.1
"""Where `linear` and `cosine` end, as a fraction of the peak."""


def make_optimizer(policy: Policy, trainer: Trainer) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=trainer.lr, betas=(0.9, 0.999), weight_decay=trainer.weight_decay, fused=True
    )
    policy.follow(optimizer)
    return optimizer


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
