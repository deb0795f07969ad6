"""EMPG inside TRL's GRPOTrainer: the trainer, its rollouts and its loss are TRL's, the credit of each turn is ours.

    from empg_cli.integrations.tools import ToolTasks
    from empg_cli.integrations.trl import EMPGTrainer

    games = ToolTasks("alfworld", train_games=200)
    trainer = EMPGTrainer(model=..., args=GRPOConfig(...), train_dataset=Dataset.from_list(list(games.rows("train"))),
                          environment_factory=games.environment)

Two methods of the trainer are extended; nothing of TRL is patched. TRL's loss takes advantages of shape (B, T) from
subclasses as it takes those of shape (B,) (its 1.16, `GRPOTrainer._compute_loss`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from empg_cli.config.algo import EmpgCredit
from empg_cli.extras import pip_install
from empg_cli.integrations.turns import on_tokens, turn_credit, turn_entropies, turn_numbers

TRIED = "trl>=1.16,<1.17"
USED = ("_generate_and_score_completions", "_calculate_rewards", "_get_per_token_logps_and_entropies")

try:
    from trl import GRPOTrainer
    from trl import __version__ as version
except ImportError:
    raise ImportError(f"this needs TRL: {pip_install(TRIED)}") from None
if missing := [name for name in USED if not hasattr(GRPOTrainer, name)]:
    raise ImportError(f"GRPOTrainer of TRL {version} has no {missing[0]}, which this needs: {pip_install(TRIED)}")


class EMPGTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with EMPG's credit (arXiv 2509.09265) in the place of one advantage for a whole conversation.

    A step is a turn: a run of tokens that the model sampled, between those of the prompt and of tools. Advantages are
    TRL's own (`scale_rewards`, reward weights), and are modulated turn by turn by the policy's mean token entropy at
    the sampling temperature. All statistics are over the turns of a generation batch, those of all processes:
    `per_device_train_batch_size * steps_per_generation * processes` conversations.

    Each generation batch costs one more forward pass. Conversations without a reward (all reward functions gave None)
    have no credit and no part in the statistics. What EMPG did is logged as `empg/...` (docs/metrics.md).
    """

    def __init__(
        self,
        *args: Any,
        k: float = 1.0,
        k_future: float = 1.0,
        zeta: float = 0.05,
        center: bool = True,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            args, kwargs: GRPOTrainer's.
            k: sharpness of g(H); 0 turns gradient scaling off.
            k_future: sharpness of the future-clarity bonus f(H).
            zeta: weight of that bonus; 0 turns it off.
            center: subtract the mean of the credit over all turns (Eq. 9).

        Raises:
            pydantic.ValidationError: one of the four is out of range.
        """
        self.credit = EmpgCredit(
            kind="empg",
            k=k,
            k_future=k_future,
            zeta=zeta,
            center=center,
            normalise="minmax",
            tail=None,
            control="none",
            order="scale_then_center",
            scaled="all",
            shift=0.0,
        )
        self._is_scored_N = torch.ones(0, dtype=torch.bool)
        super().__init__(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        reward_NF: Tensor = super()._calculate_rewards(*args, **kwargs)  # of all processes, a column a function
        self._is_scored_N = ~reward_NF.isnan().all(dim=1)
        return reward_NF

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if "num_images" in batch:
            raise ValueError("EMPGTrainer takes conversations in text only, and these have images")
        batch["advantages"] = self._token_credit(batch)
        return batch

    def _token_credit(self, batch: dict[str, Any]) -> Tensor:
        """Float [B, T]: the credit of each token's turn, 0 on tokens that were not sampled."""
        mask_BT = batch["completion_mask"].bool()
        if "tool_mask" in batch:
            mask_BT = mask_BT & batch["tool_mask"].bool()
        turn_BT = turn_numbers(mask_BT)
        entropy_BS, turns_B = turn_entropies(self._token_entropies(batch), turn_BT)
        entropy_NS = self.accelerator.gather(self.accelerator.pad_across_processes(entropy_BS, dim=1))
        advantage_N, turns_N = self.accelerator.gather((batch["advantages"], turns_B))
        credit_NS, metrics = turn_credit(self.credit, advantage_N, entropy_NS, turns_N, self._is_scored_N)
        mode = "train" if self.model.training else "eval"
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)
        first = self.accelerator.process_index * len(turn_BT)
        return on_tokens(credit_NS[first : first + len(turn_BT)], turn_BT)

    @torch.no_grad()
    def _token_entropies(self, batch: dict[str, Any]) -> Tensor:
        """Float [B, T], nats: of the distributions that the completions were drawn from, whole vocabulary."""
        args, is_training = self.args, self.model.training
        _, entropy_BT, _ = self._get_per_token_logps_and_entropies(
            self.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].shape[1],
            batch_size=args.per_device_train_batch_size if is_training else args.per_device_eval_batch_size,
            compute_entropy=True,
        )
        return entropy_BT  # type: ignore[no-any-return]
