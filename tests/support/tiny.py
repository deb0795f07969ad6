"""A very small policy on generated ALFWorld games, as real as the shipped one but random."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from empg_cli import config
from empg_cli.agents.agent import AgentMaker, agent_maker
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.model.loading import load_policy
from empg_cli.model.policy import Policy
from empg_cli.rollout.collect import collect
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.types import Trajectory

SCRATCH = [
    "model=tiny-scratch",
    "model.arch.hidden_size=32",
    "model.arch.num_layers=2",
    "model.arch.num_heads=4",
    "model.arch.num_kv_heads=2",
    "model.arch.mlp_size=48",
]


def tiny_config(*overrides: str, model: Sequence[str] = SCRATCH) -> TrainConfig:
    """A run of seconds; later overrides win."""
    return config.load(
        [
            *model,
            "trainer.threads=1",
            "trainer.device=cpu",
            "benchmark.max_steps=6",
            "rollout.max_new_tokens=5",
            "logger.console=quiet",
            *overrides,
        ]
    )


def tiny_policy(cfg: TrainConfig) -> Policy:
    words = closed_vocabulary(cfg.benchmark.name)
    return load_policy(cfg.model, cfg.benchmark.name, words=words, seed=0, device=torch.device("cpu"))


def tiny_agents(cfg: TrainConfig, policy: Policy) -> AgentMaker:
    return agent_maker(
        cfg.benchmark, cfg.model.prompt, policy, context=cfg.rollout.context, history=cfg.rollout.history
    )


def tiny_rollout(
    cfg: TrainConfig,
    policy: Policy,
    *,
    tasks: int = 3,
    group_size: int = 2,
    temperature: float = 1.0,
    look_every: int | None = None,
) -> list[Trajectory]:
    benchmark: Benchmark = make_benchmark(**cfg.benchmark.model_dump())
    make_agent = tiny_agents(cfg, policy)
    engine = TorchEngine(policy, make_agent().codec.stop_ids, look_every=look_every)
    return collect(
        engine,
        benchmark,
        make_agent,
        benchmark.tasks("train")[:tasks],
        group_size=group_size,
        rules=episode_rules(cfg.rollout, cfg.benchmark, temperature=temperature),
        stream=(0,),
    )
