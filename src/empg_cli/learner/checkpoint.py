"""The policy and its optimiser in a checkpoint; `runs.checkpoint` knows the files around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from empg_cli.disk import refusal
from empg_cli.model.policy import Policy
from empg_cli.planning.job import EIGHT_BITS
from empg_cli.ranks import ALONE, Ranks
from empg_cli.runs.checkpoint import MODEL, OPTIMIZER, PARTS, TrainState, write_checkpoint


def save_checkpoint(
    run_dir: Path,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    keep: int,
    ranks: Ranks = ALONE,
) -> Path | None:
    """Write a checkpoint; the newest `keep` and the best stay. Returns None (and logs why) when the disk refuses.

    One process keeps its optimiser in one file. Several keep it in parts, which any number of processes can read; the
    weights are one Hugging Face folder in both.
    """

    def write(folder: Path) -> None:
        if ranks.size > 1:
            _write_together(folder, policy, optimizer, ranks)
            return
        policy.save(folder / MODEL)
        with (folder / OPTIMIZER).open("wb") as file:  # given a path, torch loses the reason why a disk refuses
            torch.save(optimizer.state_dict(), file)

    if not ranks.is_first:
        return _help(write, ranks)

    def write_with_all(folder: Path) -> None:
        ranks.of_first((folder, False))
        write(folder)

    size = checkpoint_bytes(policy, optimizer)
    saved = write_checkpoint(run_dir, state, write_with_all, keep=keep, size=size)
    ranks.of_first((saved, True))
    return saved


def _help(write: Callable[[Path], None], ranks: Ranks) -> Path | None:
    """The part of the other ranks: to write when the first one does, which may try again on a full disk."""
    while True:
        folder, is_over = ranks.of_first((None, False))
        if is_over:
            return folder
        assert folder is not None, "it is to be written to"
        try:
            write(folder)
        except Exception as error:
            if refusal(error) is None:
                raise


def _write_together(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """What all ranks do comes first, and fails on all of them or none; then the first writes the weights."""
    from empg_cli.learner.optimizer_parts import save_facts, save_parts

    assert policy.sharding is not None, "several ranks spread what they train"
    was_whole = policy.sharding.is_whole
    policy.sharding.scatter()
    try:
        save_parts(folder / PARTS, policy, optimizer)
        weights = policy.whole_weights(is_kept=ranks.is_first)
    finally:
        if was_whole:
            policy.sharding.gather()
    if ranks.is_first:  # from here on nobody waits for it
        save_facts(folder / PARTS, optimizer)
        policy.save(folder / MODEL, weights)


def checkpoint_bytes(policy: Policy, optimizer: torch.optim.Optimizer) -> int:
    """About what a checkpoint takes on the disk: the parameters, and the two moments of Adam of each."""
    is_short = not isinstance(optimizer, torch.optim.AdamW)
    sizes = [(parameter.numel(), parameter.element_size()) for parameter in policy.parameters()]
    return int(sum(numbers * (size + 2 * (EIGHT_BITS if is_short else size)) for numbers, size in sizes))


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer, policy: Policy) -> None:
    """Of a checkpoint, whatever number of ranks wrote it and reads it; all of these come here."""
    if (path / PARTS).is_dir():
        from empg_cli.learner.optimizer_parts import load_parts

        load_parts(path / PARTS, policy, optimizer)
        return
    saved = torch.load(path / OPTIMIZER, map_location=policy.device, weights_only=True)
    if policy.sharding is None:
        optimizer.load_state_dict(saved)
        return
    from empg_cli.model.sharding import laid_out_like

    for number, parameter in enumerate(policy.parameters()):
        for name, value in saved["state"].get(number, {}).items():
            optimizer.state[parameter][name] = laid_out_like(value, parameter) if value.dim() else value
