"""One update beside plain forms of itself, for update.py: rows split in simpler ways, and a plain score."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from common import Report, interleaved, ratio
from empg_cli.agents.agent import agent_maker
from empg_cli.algorithms.assemble import compute_credit
from empg_cli.benchmarks import make_benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.learner import update
from empg_cli.learner.logprobs import score_batch
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.split import microbatches, tokens_computed
from empg_cli.learner.update import update_policy
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import load_policy
from empg_cli.model.policy import Policy
from empg_cli.rollout.collect import collect
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.tasks import training_tasks
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.types import Batch
from made import naive_score, run_config

Parts = list[tuple[list[int], Tensor]]
SIMILAR = "padded: rows of similar length"


def played_batch(cfg: TrainConfig, policy: Policy, tasks: int) -> Batch:
    """Trajectories of the shipped agent, as the default run samples them in its first update."""
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    make_agent = agent_maker(cfg.benchmark, cfg.model.prompt, policy, context="transcript", history=0)
    trajectories = collect(
        TorchEngine(policy, make_agent().codec.stop_ids),
        benchmark,
        make_agent,
        training_tasks(benchmark.tasks("train"), 0, tasks, seed=0),
        group_size=cfg.algo.group_size,
        rules=episode_rules(cfg.rollout, cfg.benchmark, temperature=1.0),
        stream=(0,),
    )
    batch = make_batch(trajectories, append_only=True)
    batch.credit_S, _ = compute_credit(cfg.algo, batch)
    return batch


def one_update(policy: Policy, reference: Policy, batch: Batch, cfg: TrainConfig) -> Callable[[], None]:
    """The whole learning half of an update: reference log-probs, then the optimiser steps."""
    optimizer = make_optimizer(policy, cfg.trainer)

    def run() -> None:
        batch.ref_logprob_ST, _ = score_batch(reference, batch, cfg)
        update_policy(policy, optimizer, batch, cfg, lr=0.0, update=0)

    return run


def by_parts(batch: Batch, steps_S: Tensor, groups: Sequence[list[int]]) -> Parts:
    return [(rows, steps_S[torch.isin(batch.step_row_S[steps_S], torch.tensor(rows))]) for rows in groups]


def one_padded_batch(batch: Batch, steps_S: Tensor, tokens: int, *, packs: bool) -> Parts:
    return by_parts(batch, steps_S, [torch.unique(batch.step_row_S[steps_S]).tolist()])


def unsorted_microbatches(batch: Batch, steps_S: Tensor, tokens: int, *, packs: bool) -> Parts:
    return by_parts(batch, steps_S, filled(batch, torch.unique(batch.step_row_S[steps_S]).tolist(), tokens))


def brimful_microbatches(batch: Batch, steps_S: Tensor, tokens: int, *, packs: bool) -> Parts:
    rows = sorted(set(batch.step_row_S[steps_S].tolist()), key=lambda row: (-len(batch.row_ids[row]), row))
    return by_parts(batch, steps_S, filled(batch, rows, tokens))


def filled(batch: Batch, rows: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows in the order given, each group as large as the padded tokens allow."""
    groups: list[list[int]] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(batch.row_ids[row]))
        if not groups or (len(groups[-1]) + 1) * longest > tokens:
            groups.append([])
            longest = len(batch.row_ids[row])
        groups[-1].append(row)
    return groups


def plain_forms(report: Report, options: argparse.Namespace) -> None:
    cfg = run_config()
    policy = load_policy(cfg.model, cfg.benchmark.name, seed=0, device=torch.device("cpu"))
    batch = played_batch(cfg, policy, options.tasks)
    run = one_update(policy, policy.frozen_copy(), batch, cfg)
    splits = {
        "rows of similar length": microbatches,
        "sorted, filled to the brim": brimful_microbatches,
        "unsorted micro-batches": unsorted_microbatches,
        "one padded batch": one_padded_batch,
    }

    def with_split(split: Callable[..., Parts]) -> None:
        with patch.object(Policy, "packs_rows", False), patch.object(update, "microbatches", split):
            run()

    def with_naive_score() -> None:
        with patch.object(Policy, "packs_rows", False), patch.object(Policy, "score", naive_score):
            run()

    variants: dict[str, Callable[[], None]] = {"ours": run}
    variants |= {f"padded: {name}": partial(with_split, split) for name, split in splits.items()}
    variants["padded, logits of every position, autograd"] = with_naive_score
    times = interleaved(variants, repeats=options.repeats, warmup=0)
    all_steps, budget = torch.arange(batch.num_steps), cfg.trainer.microbatch_tokens
    parts = {"ours": microbatches(batch, all_steps, budget, packs=True)}
    parts |= {f"padded: {name}": split(batch, all_steps, budget, packs=False) for name, split in splits.items()}
    read = {name: tokens_computed(batch, part, packs=name == "ours") for name, part in parts.items()}
    tokens = sum(map(len, batch.row_ids))
    report.table(
        f"One update of {batch.num_trajectories} trajectories, {tokens:,} tokens (shipped ALFWorld agent)",
        ["", "CPU s", "wall s", "ours is faster by", "tokens computed"],
        [
            [name, time.cpu, time.wall, ratio(time, times["ours"]), read.get(name, read[SIMILAR])]
            for name, time in times.items()
        ],
        "Reference log-probs, forward, backward, AdamW. Tokens of one forward pass over all rows, padding included.",
    )
