"""Log-probs and entropies of a whole batch under a policy, and how far they are from what the engine reported."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.config.schema import TrainConfig
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.split import longest_row, microbatches
from empg_cli.model.policy import Policy
from empg_cli.pulse import beat
from empg_cli.signals import obey
from empg_cli.types import Batch


@torch.no_grad()
def score_batch(
    policy: Policy, batch: Batch, cfg: TrainConfig, budget: TokenBudget | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of every sampled token under `policy`: two float [S, T] tensors on the CPU.

    Args:
        budget: None = `trainer.tokens_per_microbatch`, whatever memory says.

    Raises:
        Interrupted: a signal has asked to end, between two micro-batches.
    """
    everything_S = torch.arange(batch.num_steps)
    logprob_ST = torch.zeros(batch.mask_ST.shape)
    entropy_ST = torch.zeros(batch.mask_ST.shape)

    def score(tokens: int) -> None:
        for rows, steps_S in microbatches(batch, everything_S, tokens):
            beat()
            obey()
            logprob, entropy = policy.score(batch, rows, steps_S, temperature=cfg.rollout.temperature)
            logprob_ST[steps_S], entropy_ST[steps_S] = logprob.cpu(), entropy.cpu()

    longest, rows = longest_row(batch, everything_S)
    (budget or TokenBudget(cfg.trainer.tokens_per_microbatch)).spend(score, rows=rows, longest=longest)
    return logprob_ST, entropy_ST


def logprob_gap(batch: Batch) -> dict[str, float]:
    """Distance of the sampler's log-probs from the training model's; more than rounding is a bug."""
    assert batch.rollout_logprob_ST is not None, "asked for after scoring"
    if not batch.num_steps:
        return {}
    gap_T = (batch.old_logprob_ST - batch.rollout_logprob_ST).abs()[batch.mask_ST]
    return {"rollout/logprob_gap/max": float(gap_T.max()), "rollout/logprob_gap/mean": float(gap_T.mean())}
