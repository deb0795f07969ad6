"""One update of a model on given rows, by the parts of our loop or by TRL's GRPOTrainer, in this process.

TRL takes the rows through its `rollout_func`, so nothing is sampled on either side. Both learn from the same tokens
with the same rewards, one AdamW step, fp32, no KL term; neither computes old log-probs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from chat_work import ChatWork, longest, played
from common import peak_memory_mb
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.loading import load_folder
from empg_cli.types import Trajectory
from sides import learn, plain_grpo, quiet_trl, step_clock, trl_settings


@dataclass(frozen=True, slots=True)
class UpdateWork:
    folder: str
    work: ChatWork
    rows: int
    """Of a micro-batch; ours gets as many tokens as so many rows of the longest have."""
    checkpointing: bool


@dataclass(slots=True)
class Taken:
    """What an update took."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    growth_mb: float = 0.0
    """Of resident memory at its peak, from the moment when model and trainer stand ready."""
    sampled: int = 0
    tokens: int = 0
    """Of all rows."""


def measure(side: str, work: UpdateWork) -> Taken:
    """One update, the first of this process: what it makes once, such as the optimiser's state, is part of it."""
    taken = Taken()
    step = {"ours": _ours, "trl": _trl}[side](work, taken)
    taken.growth_mb = peak_memory_mb(step)
    return taken


def _ours(work: UpdateWork, taken: Taken) -> Callable[[], None]:
    policy = load_folder(work.folder, dtype="float32", device=torch.device("cpu"))
    if work.checkpointing:
        policy.model.gradient_checkpointing_enable()
    trajectories, most = _rows(work, policy.model)
    cfg = plain_grpo(group_size=work.work.group_size, tokens=work.rows * most)
    optimizer = make_optimizer(policy, cfg.trainer)

    def step() -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        batch = learn(policy, optimizer, trajectories, cfg, 0)
        taken.cpu_s, taken.wall_s = time.process_time() - cpu, time.perf_counter() - wall
        taken.sampled, taken.tokens = int(batch.mask_ST.sum()), sum(map(len, batch.row_ids))

    return step


def _trl(work: UpdateWork, taken: Taken) -> Callable[[], None]:
    quiet_trl()
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import GRPOTrainer

    network: Any = AutoModelForCausalLM.from_pretrained(work.folder, dtype=torch.float32)
    trajectories, most = _rows(work, network)
    tokenizer = AutoTokenizer.from_pretrained(work.folder)

    def rollout(prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Rows in the order of the prompts, which name groups."""
        members = {group: iter(list(rows)) for group, rows in itertools.groupby(trajectories, lambda row: row.group)}
        rows = [next(members[int(prompt)]) for prompt in prompts]
        answers = [_completion(row) for row in rows]
        taken.sampled = sum(sum(mask) for _, mask in answers)
        taken.tokens = sum(len(row.steps[0].prompt_ids) + len(ids) for row, (ids, _) in zip(rows, answers, strict=True))
        return {
            "prompt_ids": [row.steps[0].prompt_ids for row in rows],
            "completion_ids": [ids for ids, _ in answers],
            "env_mask": [mask for _, mask in answers],
            "logprobs": [[0.0] * len(ids) for ids, _ in answers],  # read with vLLM only
            "outcome": [row.reward for row in rows],
        }

    def after_step(cpu_s: float, wall_s: float) -> None:
        taken.cpu_s, taken.wall_s = cpu_s, wall_s

    def reward(outcome: list[float], **_: Any) -> list[float]:
        return outcome

    trainer: Any = GRPOTrainer(
        model=network,
        reward_funcs=reward,
        args=trl_settings(
            per_device_train_batch_size=work.rows,
            gradient_accumulation_steps=len(trajectories) // work.rows,
            num_generations=work.work.group_size,
            max_completion_length=most,
            max_steps=1,
            gradient_checkpointing=work.checkpointing,
        ),
        train_dataset=Dataset.from_dict({"prompt": [str(row.group) for row in trajectories if row.index == 0]}),
        processing_class=tokenizer,
        callbacks=[step_clock(after_step)],
        rollout_func=rollout,
    )
    trainer.remove_callback(PrinterCallback)

    def step() -> None:
        trainer.train()

    return step


def _rows(work: UpdateWork, network: Any) -> tuple[list[Trajectory], int]:
    """The rows and the tokens of the longest. Reads every weight, so that memory-mapped ones are resident before."""
    for weight in network.parameters():
        weight.sum()
    vocabulary = network.config.vocab_size
    turns = work.work.play(vocabulary)
    return played(turns, group_size=work.work.group_size, vocabulary=vocabulary), longest(turns)


def _completion(row: Trajectory) -> tuple[list[int], list[int]]:
    """Ids after the opening prompt, and 1 where they were sampled."""
    ids, mask = [], []
    for number, step in enumerate(row.steps):
        observed = step.prompt_ids if number else []
        ids += [*observed, *step.response_ids]
        mask += [0] * len(observed) + [1] * len(step.response_ids)
    return ids, mask
