"""verl's synchronous trainer with our credit: `trainer.v1.trainer_mode=empg algorithm.adv_estimator=empg`.

verl hands an advantage estimator rewards, mask and uids alone. The trainer below fetches what verl has stored beside
them, entropies of the pass for the old log-probs among it, and hands its estimator the steps while verl calls it; all
else of `_compute_advantage` (rollout correction, writing back) stays verl's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import open_dict
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

from empg_cli.algorithms.assemble import compute_credit
from empg_cli.config.algo import Algo
from empg_cli.errors import UserError
from empg_cli.integrations.verl import NAME, STEPS
from empg_cli.integrations.verl.settings import given, read
from empg_cli.integrations.verl.steps import Row, RowsError, Steps, reward_per_row, steps_of

FIELDS = ["entropy", "response_mask", "rm_scores", "extra_fields"]

_handed: ContextVar[tuple[Steps, Tensor] | None] = ContextVar("empg_steps", default=None)
"""The steps of the batch whose advantages verl computes, and their credit."""


@register_trainer(NAME)
class EmpgTrainer(PPOTrainerSync):  # type: ignore[misc]
    def __init__(self, config: Any) -> None:
        """
        Raises:
            UserError: verl is told something that our credit cannot be computed with.
        """
        _refuse(config)
        self._algo: Algo = read(given(config).config).algo
        with open_dict(config):  # verl asks for this name wherever synchronous and asynchronous training differ
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        steps = steps_of(fetched(batch))
        credit_S, ours = compute_credit(self._algo, steps.table)
        metrics |= {name: value for name, value in ours.items() if not name.startswith("critic/")}  # verl has its own
        with _handing(steps, credit_S):
            return super()._compute_advantage(batch, metrics)


@register_adv_est(NAME)  # type: ignore[untyped-decorator]
def empg_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index: Any = None, config: Any = None, **_: Any
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both the credit of the token's step, float [rows, tokens].

    Raises:
        UserError: another trainer calls it, or the rewards are not those that the episodes got.
    """
    if (handed := _handed.get()) is None:
        raise UserError(
            f"algorithm.adv_estimator={NAME} needs trainer.v1.trainer_mode={NAME}: verl hands an estimator neither "
            "entropies nor steps, that trainer does"
        )
    steps, credit_S = handed
    reward_B = token_level_rewards.float().sum(dim=-1)
    for row, reward in reward_per_row(steps).items():
        if not torch.isclose(reward_B[row], torch.tensor(reward), atol=1e-4):
            raise UserError(
                f"row {row} has the reward {reward_B[row]:g}, its episode got {reward:g}: our credit takes rewards "
                "as the environment gives them (no reward model, no KL in the reward)"
            )
    advantage_BT = steps.advantages(credit_S, response_mask.shape[1]).to(response_mask.device) * response_mask
    return advantage_BT, advantage_BT


@contextmanager
def _handing(steps: Steps, credit_S: Tensor) -> Iterator[None]:
    token = _handed.set((steps, credit_S))
    try:
        yield
    finally:
        _handed.reset(token)


def fetched(batch: Any) -> list[Row]:
    """A batch's rows out of verl's TransferQueue, in its order.

    Raises:
        RowsError: they lack what the pass for the old log-probs writes.
    """
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=FIELDS)
    if missing := [name for name in FIELDS if name not in data.keys()]:  # noqa: SIM118 (a TensorDict iterates rows)
        raise RowsError(f"verl stored no {missing[0]} of this batch: this verl is none that empg knows")
    entropies, masks, scores = (list(data[name].unbind()) for name in FIELDS[:3])
    extra = [getattr(value, "data", value) for value in data["extra_fields"]]
    rows = zip(batch.keys, batch.tags, entropies, masks, scores, extra, strict=True)
    return [
        Row(
            key,
            mask_T=mask.bool(),
            entropy_T=entropy,
            facts=noted.get(STEPS),
            reward=float(score.sum()),
            is_padding=bool(tag.get("is_padding", False)),
        )
        for key, tag, entropy, mask, score, noted in rows
    ]


def _refuse(config: Any) -> None:
    correction = config.algorithm.get("rollout_correction") or {}
    wrong = [
        (config.algorithm.adv_estimator != NAME, f"algorithm.adv_estimator must be {NAME}"),
        (config.algorithm.get("use_kl_in_reward", False), "algorithm.use_kl_in_reward must be false: use_kl_loss"),
        (correction.get("bypass_mode", False), "algorithm.rollout_correction.bypass_mode must be false: the pass that "
                                               "it leaves out gives the entropies"),
        (config.reward.reward_model.enable, "reward.reward_model.enable must be false: the environment rewards"),
    ]  # fmt: skip
    if said := [sentence for is_so, sentence in wrong if is_so]:
        raise UserError(f"trainer.v1.trainer_mode={NAME}: {'; '.join(said)}")
