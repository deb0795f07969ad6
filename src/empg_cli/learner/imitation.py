"""Imitation: rows of demonstrations in, better weights out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from empg_cli.errors import UserError
from empg_cli.learner.buckets import length_groups
from empg_cli.learner.course import Course
from empg_cli.learner.demonstrations import ImitationRow, Lessons
from empg_cli.learner.optim import adamw
from empg_cli.model.policy import Policy
from empg_cli.pulse import beat
from empg_cli.signals import Interrupted, held, obey

MOST_WARMUP = 100
WARMUP_SHARE = 0.1
FINAL_LR_FRACTION = 0.1
TOKENS_PER_MICROBATCH = 2048
"""Padded tokens in one forward pass, at most; changes speed and memory only."""


class NotFinite(UserError):  # noqa: N818 (a sentence for the user)
    """A gradient of NaN or infinity."""


def imitate(
    policy: Policy,
    lessons: Lessons,
    *,
    lr: float,
    kind: Literal["adamw", "adamw8bit"] = "adamw",
    tokens_per_microbatch: int = TOKENS_PER_MICROBATCH,
    course: Course | None = None,
    on_step: Callable[[int, float], bool | None] | None = None,
) -> None:
    """Train `policy` on the lessons, in place.

    A signal is obeyed between two passes. With a `course` the state is saved then, and now and then before.

    Args:
        lr: the highest learning rate.
        kind: of the optimiser.
        course: where to go on; None = from the first step on.
        on_step: called after each optimiser step with (steps done, mean loss per weighted token); True stops early.

    Raises:
        ExpertFails: the expert has nothing to show.
        ServerDown: too many of the benchmark's servers' calls stayed without an answer.
        NotFinite: a gradient was none; the weights are those of before this step.
    """
    optimizer = adamw(policy, kind, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    done = course.restore(policy, optimizer) if course else 0
    budget = min(TOKENS_PER_MICROBATCH, tokens_per_microbatch)
    policy.model.train()
    try:
        with held():
            for _, rows in zip(range(done, lessons.steps), lessons.batches(done), strict=False):
                for group in optimizer.param_groups:
                    group["lr"] = lr * learning_rate_factor(done, lessons.steps)
                loss = accumulate_imitation_gradient(policy, rows, budget)
                norm = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0))
                if not math.isfinite(norm):
                    raise NotFinite(
                        f"step {done + 1} of the warm start gave NaN or infinity, and no weights to go on with: "
                        "take a lower trainer.warm_start.lr, or model.dtype=float32"
                    )
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                done += 1
                if on_step and on_step(done, loss):
                    break
                if course:
                    course.save_if_due(policy, optimizer, done)
    except Interrupted:
        policy.drop_gradients()
        if course:
            course.save(policy, optimizer, done)
        raise
    policy.model.eval()


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over a tenth of the steps, a hundred at most, then linear decay to a tenth."""
    warmup = min(MOST_WARMUP, math.ceil(WARMUP_SHARE * steps))
    return min(1.0, (step + 1) / warmup) * (1 - (1 - FINAL_LR_FRACTION) * step / steps)


def accumulate_imitation_gradient(
    policy: Policy, rows: Sequence[ImitationRow], budget: int = TOKENS_PER_MICROBATCH
) -> float:
    """Backward through the weighted mean negative log-likelihood of the rows' tokens; returns it.

    Rows of similar length share a forward pass; the denominator is the whole batch's, so the split does not change the
    gradient. A row's first token is never predicted, so its weight does not count.
    """
    total_weight = weight_of(rows)
    total = 0.0
    for together in passes(rows, budget):
        obey()
        loss = weighted_nll(policy, together) / total_weight
        loss.backward()
        total += float(loss.detach())
        beat()
    return total


@torch.no_grad()
def mean_loss(policy: Policy, rows: Sequence[ImitationRow], budget: int = TOKENS_PER_MICROBATCH) -> float:
    """The weighted mean negative log-likelihood of the rows' tokens; nothing trains.

    Raises:
        Interrupted: a signal has asked to end, between two passes.
    """
    total = 0.0
    for together in passes(rows, budget):
        obey()
        total += float(weighted_nll(policy, together))
        beat()
    return total / weight_of(rows)


def weight_of(rows: Sequence[ImitationRow]) -> float:
    return sum(sum(row.weights[1:]) for row in rows)


def passes(rows: Sequence[ImitationRow], budget: int) -> Iterator[list[ImitationRow]]:
    """The rows in which something trains, those of similar length together."""
    trained = [row for row in rows if any(row.weights[1:])]
    for group in length_groups([len(row.token_ids) for row in trained], budget):
        yield [trained[number] for number in group]


def weighted_nll(policy: Policy, rows: Sequence[ImitationRow]) -> Tensor:
    """Sum of weight times negative log-likelihood over the rows' tokens."""
    ids = [torch.tensor(row.token_ids) for row in rows]
    target_BT = torch.nn.utils.rnn.pad_sequence([row[1:] for row in ids], batch_first=True)
    weight_BT = torch.nn.utils.rnn.pad_sequence([torch.tensor(row.weights[1:]) for row in rows], batch_first=True)
    trained_BT = weight_BT > 0
    row_T, column_T = trained_BT.to(policy.device).nonzero(as_tuple=True)
    ids_BT, target_T = policy.padded([row[:-1] for row in ids]), target_BT[trained_BT].to(policy.device)
    logprob_T, _ = policy.lm(ids_BT, (row_T, column_T), target_T)
    loss: Tensor = -(weight_BT[trained_BT].to(policy.device) * logprob_T).sum()
    return loss
