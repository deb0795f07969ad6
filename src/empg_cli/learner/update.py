"""One optimiser pass over a rollout batch: mini-batches, micro-batches by token budget, global denominators."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from empg_cli.algorithms.assemble import compute_loss, loss_weights
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.split import microbatches, minibatches, padding_share
from empg_cli.model.policy import Policy
from empg_cli.types import Batch

_STREAM = 2
"""Keeps this use of the seed apart from others."""


def update_policy(
    policy: Policy, optimizer: torch.optim.Optimizer, batch: Batch, cfg: TrainConfig, *, lr: float, update: int
) -> dict[str, float]:
    """`epochs` passes of `minibatches` optimiser steps each. Returns the metrics, averaged over optimiser steps.

    Every weight is fixed per mini-batch before its micro-batches run, so the gradient does not depend on the split.
    """
    trainer = cfg.trainer
    for group in optimizer.param_groups:
        group["lr"] = lr
    totals: dict[str, float] = defaultdict(float)
    optimizer_steps = 0
    policy.model.train()
    for epoch in range(trainer.epochs):
        order_N = _shuffled(batch.num_trajectories, cfg.seed, update, epoch)
        for steps_S in minibatches(batch, trainer.minibatches, order_N):
            metrics = accumulate_gradient(policy, batch, steps_S, cfg)
            grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), trainer.max_grad_norm)
            metrics["actor/grad_norm"] = float(grad_norm)
            if torch.isfinite(grad_norm):
                optimizer.step()
            else:
                metrics["actor/skipped_steps"] = 1.0
            optimizer.zero_grad(set_to_none=True)
            optimizer_steps += 1
            for name, value in metrics.items():
                totals[name] += value
    policy.model.eval()
    return {"actor/lr": lr} | {name: value / max(optimizer_steps, 1) for name, value in totals.items()}


def _shuffled(size: int, *key: int) -> Tensor:
    """A permutation that depends on the key alone."""
    order = np.random.default_rng(np.random.SeedSequence([_STREAM, *key])).permutation(size)
    return torch.from_numpy(order)


def accumulate_gradient(policy: Policy, batch: Batch, steps_S: Tensor, cfg: TrainConfig) -> dict[str, float]:
    """Backward through the loss of one mini-batch, micro-batch by micro-batch. Returns summed metrics."""
    weight_ST = torch.zeros(batch.mask_ST.shape)
    weight_ST[steps_S] = loss_weights(cfg.algo.loss, batch.mask_ST[steps_S], batch.trajectory_S[steps_S])
    # Sums over a constant are no means; everywhere else the weights sum to 1 but for rounding.
    total_weight = float(weight_ST.sum()) if cfg.algo.loss.weighting == "constant" else 1.0
    assert batch.credit_S is not None, "compute_credit comes before the update"
    parts = microbatches(batch, steps_S, cfg.trainer.tokens_per_microbatch)
    totals: dict[str, float] = defaultdict(float, {"perf/padding": padding_share(batch, parts)})
    for rows, micro_S in parts:
        logprob_ST, entropy_ST = policy.score(batch, rows, micro_S, temperature=cfg.rollout.temperature)

        def part(values: Tensor | None, steps_S: Tensor = micro_S) -> Tensor | None:
            return None if values is None else values[steps_S].to(policy.device)

        terms = compute_loss(
            cfg.algo.loss,
            logprob_ST=logprob_ST,
            entropy_ST=entropy_ST,
            old_logprob_ST=batch.old_logprob_ST[micro_S].to(policy.device),
            ref_logprob_ST=part(batch.ref_logprob_ST),
            credit_S=batch.credit_S[micro_S].to(policy.device),
            mask_ST=batch.mask_ST[micro_S].to(policy.device),
            weight_ST=weight_ST[micro_S].to(policy.device),
            trajectory_S=batch.trajectory_S[micro_S].to(policy.device),
            rollout_logprob_ST=part(batch.rollout_logprob_ST),
            total_weight=total_weight,
        )
        terms.loss.backward()
        for name, value in terms.metrics.items():
            totals[name] += float(value)
    return totals
