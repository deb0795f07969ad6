"""The cost of an update as the run grows, for update.py: exponents of power laws."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch

from common import Report, growth_exponent, interleaved
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import update_policy
from empg_cli.model.loading import load_policy
from empg_cli.model.policy import Policy
from empg_cli.model.scoring import logprob_and_entropy
from empg_cli.types import Batch
from made import made_batch, made_policy, run_config


def growth(report: Report, options: argparse.Namespace) -> None:
    cfg = run_config()
    policy = load_policy(cfg.model, cfg.benchmark.name, seed=0, device=torch.device("cpu"))
    wide = made_policy(hidden=256, layers=6, heads=4, kv_heads=2, mlp=768, vocabulary=900)
    curve(report, "trajectories (5 turns)", (8, 32, 128, 512), policy, lambda size: made_batch(size, 5), cfg, options)
    curve(report, "turns (16 trajectories)", (5, 10, 20, 50), policy, lambda size: made_batch(16, size), cfg, options)
    curve(
        report,
        "turns (4 trajectories, hidden 256)",
        (5, 10, 20, 50),
        wide,
        lambda size: made_batch(4, size),
        cfg,
        options,
    )
    curve(
        report,
        "tokens of context (1 row)",
        (256, 512, 1024, 2048, 4096, 8192),
        made_policy(hidden=96, layers=3, heads=4, kv_heads=2, mlp=192, vocabulary=912),
        lambda size: made_batch(1, size // 64, opening=64, observation=48, response=16),
        cfg,
        options,
    )
    hidden_TD = torch.randn(256, 128, requires_grad=True)

    def head_cost(vocabulary: int) -> Callable[[], None]:
        weight_VD, target_T = torch.randn(vocabulary, 128, requires_grad=True), torch.arange(256)

        def learn() -> None:
            logprob_T, entropy_T = logprob_and_entropy(hidden_TD, weight_VD, target_T)
            (logprob_T.sum() + entropy_T.sum()).backward()

        return learn

    sizes = (1_000, 8_000, 32_000, 151_936)
    fitted(report, "vocabulary (head only, 256 tokens)", sizes, {size: head_cost(size) for size in sizes}, options)


def curve(
    report: Report,
    what: str,
    sizes: Sequence[int],
    policy: Policy,
    batch_of: Callable[[int], Batch],
    cfg: TrainConfig,
    options: argparse.Namespace,
) -> None:
    optimizer = make_optimizer(policy, cfg.trainer)

    def learn(size: int) -> Callable[[], object]:
        batch = batch_of(size)
        return lambda: update_policy(policy, optimizer, batch, cfg, lr=0.0, update=0)

    fitted(report, what, sizes, {size: learn(size) for size in sizes}, options)


def fitted(
    report: Report,
    what: str,
    sizes: Sequence[int],
    runs: dict[int, Callable[[], object]],
    options: argparse.Namespace,
) -> None:
    runs[sizes[0]]()
    times = interleaved({str(size): run for size, run in runs.items()}, repeats=options.repeats, warmup=0)
    seconds = [time.cpu for time in times.values()]
    report.table(
        f"Cost of an update against {what}",
        ["", *(f"{size:,}" for size in sizes), "exponent"],
        [["CPU s", *seconds, growth_exponent(sizes, seconds)]],
    )
