"""TRL trainers on the game of doors, and what one of them saw; also a program, for runs of several processes.

python -m torch.distributed.run --nproc-per-node 2 tests/support/trl_runs.py MODEL OUT
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback
from trl import GRPOConfig

from empg_cli.integrations.trl import EMPGTrainer
from empg_cli.types import Step, Task, Trajectory
from tests.support.tool_calls import doors


@dataclass
class Seen:
    """A generation batch, one row a conversation."""

    prompts: list[list[int]]
    completions: list[list[int]]
    sampled: list[list[bool]]
    rewards: list[float | None]
    credit: list[Tensor]
    """Of each token of a completion."""
    entropy: list[Tensor]
    """Of each token of a completion, nats; what TRL computes."""


class Watched(EMPGTrainer):
    """Keeps its last generation batch, and what the loss was given of it: pairs of a completion and its advantages."""

    seen: Seen

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        completed = batch["completion_mask"].bool()
        self.seen = Seen(
            prompts=[ids.tolist() for ids in _cut(batch["prompt_ids"], batch["prompt_mask"].bool())],
            completions=[ids.tolist() for ids in _cut(batch["completion_ids"], completed)],
            sampled=[own.bool().tolist() for own in _cut(batch["tool_mask"], completed)],
            rewards=[env.get_reward() for env in self.environments],
            credit=_cut(batch["advantages"], completed),
            entropy=_cut(self._entropy_BT, completed),
        )
        self.learned: list[tuple[list[int], list[float]]] = []
        return batch

    def _token_entropies(self, batch: dict[str, Any]) -> Tensor:
        self._entropy_BT = super()._token_entropies(batch)
        return self._entropy_BT

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        completed = inputs["completion_mask"].bool()
        rows = zip(_cut(inputs["completion_ids"], completed), _cut(inputs["advantages"], completed), strict=True)
        self.learned += [(ids.tolist(), row.tolist()) for ids, row in rows]
        return super()._compute_loss(model, inputs)


def _cut(value_BT: Tensor, mask_BT: Tensor) -> list[Tensor]:
    return [row[mask] for row, mask in zip(value_BT, mask_BT, strict=True)]


def trainer(kind: type, model: Path, out: Path, *, more: dict[str, Any] | None = None, **settings: Any) -> Any:
    """On one thread of a CPU.

    Args:
        kind: of trainer.
        more: its own arguments.
        settings: of GRPOConfig.
    """
    tasks = doors()
    values = {
        "per_device_train_batch_size": 32,
        "num_generations": 16,
        "max_completion_length": 128,
        "max_tool_calling_iterations": 5,
        "learning_rate": 5e-4,
        "lr_scheduler_type": "constant",
        "top_k": 0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    made = kind(
        model=str(model),
        args=GRPOConfig(output_dir=str(out), **(values | settings)),
        train_dataset=Dataset.from_list(list(tasks.rows("train"))),
        environment_factory=tasks.environment,
        **(more or {}),
    )
    made.remove_callback(PrinterCallback)
    return made


def trajectories(seen: Seen, *, group_size: int) -> list[Trajectory]:
    """The same conversations as ours: a step is a run of sampled tokens; what nobody could judge is left out."""
    found = []
    for row, reward in enumerate(seen.rewards):
        if reward is None:
            continue
        made = Trajectory(Task(str(row), "doors", "train"), group=row // group_size, index=row % group_size)
        made.steps = _steps(seen, row)
        made.steps[-1].reward = reward
        found.append(made)
    return found


def _steps(seen: Seen, row: int) -> list[Step]:
    steps: list[Step] = []
    new, was_sampled = list(seen.prompts[row]), False
    for token, own, entropy in zip(seen.completions[row], seen.sampled[row], seen.entropy[row].tolist(), strict=True):
        if own and not was_sampled:
            steps.append(Step(prompt_ids=new, response_ids=[], logprobs=[], entropies=[]))
            new = []
        if own:
            steps[-1].response_ids.append(token)
            steps[-1].logprobs.append(0.0)
            steps[-1].entropies.append(entropy)
        else:
            new.append(token)
        was_sampled = own
    return steps


def main(model: str, out: str) -> None:
    folder = Path(out)
    made = trainer(
        Watched, Path(model), folder, max_steps=1, scale_rewards="none", per_device_train_batch_size=16,
        num_generations=8, ddp_backend="gloo",
    )  # fmt: skip
    made.train()
    torch.save(vars(made.seen), folder / f"{made.accelerator.process_index}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
