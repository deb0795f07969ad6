"""One optimiser pass over a rollout batch: mini-batches, micro-batches by token budget, global denominators."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from empg_cli.algorithms.assemble import compute_loss, loss_weights
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.split import dealt, longest_row, minibatches, reading_shares
from empg_cli.model.memory import give_back_heap
from empg_cli.model.policy import Policy
from empg_cli.pulse import beat
from empg_cli.ranks import ALONE, Ranks
from empg_cli.types import Batch

_STREAM = 2
"""Keeps this use of the seed apart from others."""
MUST_BE_FINITE = ("actor/grad_norm", "actor/pg_loss", "actor/kl_loss", "actor/entropy")


def update_policy(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    cfg: TrainConfig,
    *,
    lr: float,
    update: int,
    budget: TokenBudget | None = None,
    before_step: Callable[[], None] | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """`epochs` passes of `minibatches` optimiser steps each. Returns the metrics, averaged over optimiser steps.

    Every weight is fixed per mini-batch before its micro-batches run, so the gradient does not depend on the split. A
    mini-batch with NaN or infinity in what it read or in what came out is left out: weights and optimiser stay. Of
    several ranks each reads its share of the micro-batches, and all take the same step.

    Args:
        budget: None = `trainer.tokens_per_microbatch`, whatever memory says.
        before_step: called before the weights are changed.

    Raises:
        Interrupted: a signal has asked to end, after a micro-batch. Not after the first optimiser step: from there
            on the whole update is the next state that a run can go on from.
    """
    trainer = cfg.trainer
    budget = budget or TokenBudget(trainer.microbatch_tokens)
    for group in optimizer.param_groups:
        group["lr"] = lr
    totals: dict[str, float] = defaultdict(float)
    optimizer_steps = 0
    has_changed = False
    policy.model.train()
    for epoch in range(trainer.epochs):
        order_N = _shuffled(batch.num_trajectories, cfg.seed, update, epoch)
        for steps_S in minibatches(batch, trainer.minibatches, order_N):
            metrics = _whole_gradient(policy, batch, steps_S, cfg, budget, may_stop=not has_changed, ranks=ranks)
            metrics["actor/grad_norm"] = policy.clip_gradients(trainer.max_grad_norm)
            if was_finite(batch, steps_S) and all(math.isfinite(metrics.get(name, 0.0)) for name in MUST_BE_FINITE):
                if before_step:
                    before_step()
                has_changed = True
                optimizer.step()
            else:
                metrics["actor/skipped_steps"] = 1.0
            optimizer.zero_grad(set_to_none=True)
            optimizer_steps += 1
            for name, value in metrics.items():
                totals[name] += value
    policy.model.eval()
    give_back_heap(policy.num_parameters)  # a rollout needs it for keys and values
    metrics = {"actor/lr": lr} | {name: value / max(optimizer_steps, 1) for name, value in totals.items()}
    return metrics | ({"perf/tokens_per_microbatch": float(budget.tokens)} if budget.was_halved else {})


def was_finite(batch: Batch, steps_S: Tensor) -> bool:
    """Neither the sampler nor the reference gave NaN or infinity for these steps."""
    assert batch.credit_S is not None, "compute_credit comes before the update"
    given = (batch.credit_S, batch.old_logprob_ST, batch.entropy_ST, batch.ref_logprob_ST)
    return all(values is None or bool(values[steps_S].isfinite().all()) for values in given)


def _shuffled(size: int, *key: int) -> Tensor:
    """A permutation that depends on the key alone."""
    order = np.random.default_rng(np.random.SeedSequence([_STREAM, *key])).permutation(size)
    return torch.from_numpy(order)


def _whole_gradient(
    policy: Policy,
    batch: Batch,
    steps_S: Tensor,
    cfg: TrainConfig,
    budget: TokenBudget,
    *,
    may_stop: bool,
    ranks: Ranks,
) -> dict[str, float]:
    """`accumulate_gradient` within a budget: where memory runs out, it begins anew without what it has added up."""

    def accumulate(tokens: int) -> dict[str, float]:
        policy.drop_gradients()
        return accumulate_gradient(policy, batch, steps_S, cfg, tokens=tokens, may_stop=may_stop, ranks=ranks)

    longest, rows = longest_row(batch, steps_S)
    return budget.spend(accumulate, rows=rows, longest=longest)


def accumulate_gradient(
    policy: Policy,
    batch: Batch,
    steps_S: Tensor,
    cfg: TrainConfig,
    *,
    tokens: int | None = None,
    may_stop: bool = False,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Backward through the loss of one mini-batch, micro-batch by micro-batch. Returns summed metrics.

    Args:
        tokens: of a micro-batch; None = `trainer.tokens_per_microbatch`.
        may_stop: a signal ends it after a micro-batch.
    """
    weight_ST = torch.zeros(batch.mask_ST.shape)
    weight_ST[steps_S] = loss_weights(cfg.algo.loss, batch.mask_ST[steps_S], batch.trajectory_S[steps_S])
    # Sums over a constant are no means; everywhere else the weights sum to 1 but for rounding.
    total_weight = float(weight_ST.sum()) if cfg.algo.loss.weighting == "constant" else 1.0
    assert batch.credit_S is not None, "compute_credit comes before the update"
    packs = policy.packs_rows
    parts = dealt(batch, steps_S, tokens or cfg.trainer.microbatch_tokens, packs=packs, ranks=ranks)
    totals: dict[str, float] = defaultdict(float)
    for number, (rows, micro_S) in enumerate(parts.own):
        is_counted = number < parts.counted
        policy.before_backward(is_last=number + 1 == len(parts.own))
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
            weight_ST=(weight_ST[micro_S] * is_counted).to(policy.device),
            trajectory_S=batch.trajectory_S[micro_S].to(policy.device),
            rollout_logprob_ST=part(batch.rollout_logprob_ST),
            total_weight=total_weight,
        )
        terms.loss.backward()
        give_back_heap(policy.num_parameters)
        for name, value in terms.metrics.items():
            totals[name] += float(value) if is_counted else 0.0
        beat()
        if may_stop:
            ranks.obey()
    return ranks.add_up_numbers(totals) | reading_shares(batch, parts.all, packs=packs)
