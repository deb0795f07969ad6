"""What learns: the policy, its optimiser, and the reference that the KL term compares it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.checkpoint import save_checkpoint
from empg_cli.learner.logprobs import logprob_gap, score_batch
from empg_cli.learner.optim import learning_rate
from empg_cli.learner.update import update_policy
from empg_cli.model.policy import Policy
from empg_cli.ranks import ALONE, Ranks
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Batch


@dataclass(slots=True)
class Learner:
    cfg: TrainConfig
    policy: Policy
    optimizer: torch.optim.Optimizer
    reference: Policy | None
    """The policy before RL; None without a KL term."""
    budget: TokenBudget
    ranks: Ranks = ALONE
    is_whole: bool = True
    """False while an update has changed the weights and is not done: no state that a run could go on from."""

    def score(self, batch: Batch) -> dict[str, float]:
        """Fill in what the loss compares new log-probs with. Returns what to log about it.

        With `trainer.old_logprobs=recompute` old log-probs and entropies become the training model's own; otherwise
        those of the sampler stay.

        Raises:
            UserError: they are to stay, and the engine gave no entropies.
        """
        metrics: dict[str, float] = {}
        for policy in (self.policy, self.reference):
            if policy is not None and policy.sharding is not None:
                policy.sharding.before_learning()
        if self.cfg.trainer.old_logprobs == "recompute":
            batch.rollout_logprob_ST = batch.old_logprob_ST
            batch.old_logprob_ST, batch.entropy_ST = score_batch(self.policy, batch, self.cfg, self.budget, self.ranks)
            metrics = logprob_gap(batch)
        elif (
            batch.num_steps and batch.entropy_ST[batch.mask_ST].isnan().all() and batch.old_logprob_ST.isfinite().all()
        ):
            raise UserError(
                "the rollout engine does not see the entropies of what it samples: set trainer.old_logprobs=recompute"
            )
        if self.reference is not None:
            batch.ref_logprob_ST, _ = score_batch(self.reference, batch, self.cfg, self.budget, self.ranks)
        return metrics

    def step(self, batch: Batch, update: int) -> dict[str, float]:
        """Train on a batch that has its credit, as update number `update` (from 0). Returns what to log about it."""

        def before_step() -> None:
            self.is_whole = False

        metrics = update_policy(
            self.policy,
            self.optimizer,
            batch,
            self.cfg,
            lr=learning_rate(self.cfg.trainer, update),
            update=update,
            budget=self.budget,
            before_step=before_step,
            ranks=self.ranks,
        )
        self.is_whole = True
        return metrics

    def save(self, run_dir: Path, state: TrainState) -> bool:
        """Write a checkpoint into the run folder; False, and said, where the disk refuses: training goes on."""
        keep = self.cfg.trainer.keep_checkpoints
        return save_checkpoint(run_dir, self.policy, self.optimizer, state, keep=keep, ranks=self.ranks) is not None
