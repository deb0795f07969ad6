"""The policy and its optimiser in a checkpoint; `runs.checkpoint` knows the files around them."""

from __future__ import annotations

from pathlib import Path

import torch

from empg_cli.model.policy import Policy
from empg_cli.runs.checkpoint import MODEL, OPTIMIZER, TrainState, write_checkpoint


def save_checkpoint(
    run_dir: Path, policy: Policy, optimizer: torch.optim.Optimizer, state: TrainState, *, keep: int
) -> Path | None:
    """Write a checkpoint; the newest `keep` and the best stay. Returns None (and logs why) when the disk refuses."""

    def write(folder: Path) -> None:
        policy.save(folder / MODEL)
        with (folder / OPTIMIZER).open("wb") as file:  # given a path, torch loses the reason why a disk refuses
            torch.save(optimizer.state_dict(), file)

    return write_checkpoint(run_dir, state, write, keep=keep, size=checkpoint_bytes(policy))


def checkpoint_bytes(policy: Policy) -> int:
    """About what a checkpoint takes on the disk: the parameters, and the two moments of Adam, in their type."""
    return 3 * sum(parameter.numel() * parameter.element_size() for parameter in policy.parameters())


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    optimizer.load_state_dict(torch.load(path / OPTIMIZER, map_location=device, weights_only=True))
