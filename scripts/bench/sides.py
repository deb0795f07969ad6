"""The two sides of end_to_end.py: the parts of our training loop, and TRL's GRPOTrainer, on the game of words."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from common import Timing
from empg_cli import config
from empg_cli.algorithms.assemble import compute_credit
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import update_policy
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import load_folder
from empg_cli.model.policy import Policy
from empg_cli.rollout.collect import collect
from empg_cli.rollout.episode import EpisodeRules
from empg_cli.rollout.masking import trainable
from empg_cli.rollout.outcomes import describe_rollout
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.types import Batch, Trajectory
from word_game import (
    ToolEnv,
    WordBenchmark,
    Work,
    even_share,
    model_folder,
    prompt_text,
    tokenizer,
    tool_tokenizer,
    word_agent,
)

LR = 1e-4


@dataclass
class Side:
    """What one side took, update by update."""

    update: Timing = field(default_factory=Timing)
    generation: Timing = field(default_factory=Timing)
    tokens: list[tuple[int, int]] = field(default_factory=list)
    """Per update: (tokens sampled, tokens of all rows)."""

    def forget_first(self) -> None:
        """The warm-up."""
        for timing in (self.update, self.generation):
            del timing.cpu_s[0], timing.wall_s[0]


def plain_grpo(*, group_size: int, tokens: int) -> TrainConfig:
    """One optimiser step an update, no term but the policy's own.

    Args:
        tokens: of a micro-batch (`trainer.tokens_per_microbatch`).
    """
    return config.load(
        [
            "algo=grpo",
            f"algo.group_size={group_size}",
            "algo.loss.kl_coef=0",
            "algo.loss.entropy_coef=0",
            f"trainer.lr={LR}",
            "trainer.minibatches=1",
            f"trainer.tokens_per_microbatch={tokens}",
            "trainer.lr_schedule=constant",
        ]
    )


def learn(
    policy: Policy, optimizer: torch.optim.Optimizer, trajectories: list[Trajectory], cfg: TrainConfig, number: int
) -> Batch:
    """What the loop does with the trajectories of an update."""
    batch = make_batch(trainable(trajectories), append_only=True)
    batch.credit_S, _ = compute_credit(cfg.algo, batch)
    update_policy(policy, optimizer, batch, cfg, lr=LR, update=number)
    return batch


class Ours(Side):
    """The training loop's own parts, in its order (loop.py)."""

    def __init__(self, work: Work, *, tokens: int) -> None:
        """tokens: as for `plain_grpo`."""
        super().__init__()
        self.work = work
        self.cfg = plain_grpo(group_size=work.group_size, tokens=tokens)
        self.policy = load_folder(str(model_folder()), dtype="float32", device=torch.device("cpu"))
        self.optimizer = make_optimizer(self.policy, self.cfg.trainer)
        self.engine = TorchEngine(self.policy, stop_ids=[])
        self.benchmark = WordBenchmark(work)
        self.rules = EpisodeRules(
            append_only=True,
            max_steps=work.turns,
            temperature=1.0,
            max_new_tokens=work.response,
            max_context_tokens=work.longest_row,
            invalid_action_penalty=0.0,
            penalise_refused=False,
        )

    def step(self) -> None:
        number = len(self.tokens)
        with self.update.measure():
            with self.generation.measure():
                trajectories = self.play(number)
            describe_rollout(trajectories, self.benchmark.name)
            batch = learn(self.policy, self.optimizer, trajectories, self.cfg, number)
        self.tokens.append((int(batch.mask_ST.sum()), sum(map(len, batch.row_ids))))

    def play(self, number: int) -> list[Trajectory]:
        """The rollout of an update."""
        return collect(
            self.engine,
            self.benchmark,
            word_agent,
            self.benchmark.tasks("train")[number * self.work.groups : (number + 1) * self.work.groups],
            group_size=self.work.group_size,
            rules=self.rules,
            stream=(0, number),
        )


def quiet_trl() -> None:
    """Say nothing of experimental features and of renamings; call it before TRL is imported."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' renamings, which TRL still uses
    from transformers.utils import logging

    logging.set_verbosity_error()


def trl_settings(**given: Any) -> Any:
    """A GRPOConfig of the same algorithm as `plain_grpo`, on a CPU, that logs and saves nothing."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=tempfile.mkdtemp(prefix="empg-bench-"),
        temperature=1.0,
        top_k=0,
        beta=0.0,
        loss_type="dapo",  # the mean over all tokens, as ours
        learning_rate=LR,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=False,
        shuffle_dataset=False,
        logging_steps=10**9,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **given,
    )


def step_clock(after_step: Callable[[float, float], None]) -> Any:
    """A callback for TRL's trainer that hands over the CPU and wall seconds of each step; the call is not counted."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self._start()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            after_step(time.process_time() - self._cpu, time.perf_counter() - self._wall)
            self._start()

        def _start(self) -> None:
            self._cpu, self._wall = time.process_time(), time.perf_counter()

    return Clock()


class Trl(Side):
    """GRPOTrainer; `after_step` is called after each of its steps and not counted."""

    def __init__(self, work: Work, *, steps: int, parts: int, checkpointing: bool = False) -> None:
        """parts: micro-batches of a step."""
        super().__init__()
        quiet_trl()
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, PrinterCallback
        from trl import GRPOTrainer

        numbers = range(steps * work.groups)
        several = work.turns > 1
        texts = [prompt_text(work, number) for number in numbers]
        data: dict[str, Any] = {
            "number": list(numbers),
            "prompt": [[{"role": "user", "content": text}] for text in texts]
            if several
            else [f"{t} <act>" for t in texts],
        }
        words = tool_tokenizer() if several else tokenizer()
        settings = trl_settings(
            per_device_train_batch_size=work.trajectories // parts,
            gradient_accumulation_steps=parts,
            num_generations=work.group_size,
            max_completion_length=work.longest_row,
            max_tool_calling_iterations=work.turns - 1 if several else None,
            generation_kwargs={"max_new_tokens": work.response, "min_new_tokens": work.response},
            max_steps=steps,
            gradient_checkpointing=checkpointing,
        )
        self.after_step: Callable[[], None] = lambda: None

        def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
            return [even_share(words.decode(ids)) for ids in completion_ids]

        def after_step(cpu_s: float, wall_s: float) -> None:
            self.update.cpu_s.append(cpu_s)
            self.update.wall_s.append(wall_s)
            self.after_step()

        self.trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32),
            reward_funcs=reward,
            args=settings,
            train_dataset=Dataset.from_dict(data),
            processing_class=words,
            callbacks=[step_clock(after_step)],
            environment_factory=(lambda: ToolEnv(work)) if several else None,
        )
        self.trainer.remove_callback(PrinterCallback)
        generate = self.trainer._generate

        def counted(prompts: list[Any]) -> Any:
            with self.generation.measure():
                result = generate(prompts)
            prompt_ids, completion_ids, sampled = result[:3]
            rows = sum(map(len, prompt_ids)) + sum(map(len, completion_ids))
            self.tokens.append((sum(map(sum, sampled)) if sampled else sum(map(len, completion_ids)), rows))
            return result

        self.trainer._generate = counted

    def run(self) -> None:
        self.trainer.train()
