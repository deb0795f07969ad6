"""Log-probs and entropies of a whole batch under a policy, and how far they are from what the engine reported."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.config.schema import TrainConfig
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.split import dealt, longest_row
from empg_cli.model.policy import Policy
from empg_cli.pulse import beat
from empg_cli.ranks import ALONE, Ranks
from empg_cli.types import Batch


@torch.no_grad()
def score_batch(
    policy: Policy, batch: Batch, cfg: TrainConfig, budget: TokenBudget | None = None, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of every sampled token under `policy`: two float [S, T] tensors on the CPU.

    Each rank reads its share, and all return the whole.

    Args:
        budget: None = `trainer.tokens_per_microbatch`, whatever memory says.

    Raises:
        Interrupted: a signal has asked to end, between two micro-batches.
    """
    everything_S = torch.arange(batch.num_steps)
    found_2ST = torch.zeros(2, *batch.mask_ST.shape)

    def score(tokens: int) -> None:
        parts = dealt(batch, everything_S, tokens, packs=policy.packs_rows, ranks=ranks)
        for number, (rows, steps_S) in enumerate(parts.own):
            beat()
            ranks.obey()
            scored = policy.score(batch, rows, steps_S, temperature=cfg.rollout.temperature)
            if number < parts.counted:
                found_2ST[:, steps_S] = torch.stack(scored).cpu()

    longest, rows = longest_row(batch, everything_S)
    (budget or TokenBudget(cfg.trainer.microbatch_tokens)).spend(score, rows=rows, longest=longest)
    ranks.add_up(found_2ST)
    logprob_ST, entropy_ST = found_2ST
    return logprob_ST, entropy_ST


def logprob_gap(batch: Batch) -> dict[str, float]:
    """How far the policy that sampled is from the one before the update, over sampled tokens: where both are one, more
    than rounding is a bug.

    With r = pi_old / pi_rollout of a token: |log r|, the estimate r - 1 - log r of KL(rollout || old), which is never
    negative, and the effective sample size (sum r)^2 / (n sum r^2) of importance sampling, 1 where all r are equal.
    """
    assert batch.rollout_logprob_ST is not None, "asked for after scoring"
    if not batch.num_steps:
        return {}
    log_ratio_T = (batch.old_logprob_ST - batch.rollout_logprob_ST)[batch.mask_ST].double()
    ratio_T = log_ratio_T.exp()
    return {
        "rollout/logprob_gap/max": float(log_ratio_T.abs().max()),
        "rollout/logprob_gap/mean": float(log_ratio_T.abs().mean()),
        "rollout/logprob_gap/kl": float((torch.expm1(log_ratio_T) - log_ratio_T).mean()),
        "rollout/logprob_gap/ess": float(ratio_T.sum() ** 2 / (len(ratio_T) * (ratio_T**2).sum())),
    }
