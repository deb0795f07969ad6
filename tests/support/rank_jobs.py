"""What several ranks compute together, for tests that compare it with one process.

python -m tests.support.rank_jobs OUT SIZE:JOB,JOB ...: the first of SIZE ranks saves each job's results in OUT/JOB.pt.
"""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from empg_cli import config
from empg_cli.algorithms.assemble import credit_parts
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.checkpoint import load_optimizer
from empg_cli.learner.learner import Learner
from empg_cli.learner.optim import make_optimizer
from empg_cli.loop import train
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import reloaded
from empg_cli.model.sharding import mesh_of, whole
from empg_cli.ranks import Ended, Ranks
from empg_cli.runs.checkpoint import MODEL, TrainState, all_checkpoints
from empg_cli.types import Batch
from tests.support.ahead_ranks import played_ahead
from tests.support.tiny import tiny_config, tiny_policy, tiny_rollout

ALGORITHMS = ("grpo", "dapo", "empg", "gigpo", "gspo")
ROOT = Path(__file__).parents[2]
LIMIT_S = 300


def algorithm_config(algo: str, *overrides: str) -> TrainConfig:
    """Two optimiser steps over micro-batches that are smaller than a rank's share."""
    return tiny_config(
        f"algo={algo}",
        "algo.group_size=3",
        "trainer.tasks_per_update=4",
        "trainer.minibatches=2",
        "trainer.tokens_per_microbatch=400",
        "trainer.old_logprobs=recompute",
        "trainer.lr=1e-3",
        *overrides,
    )


def played_batch(cfg: TrainConfig) -> Batch:
    """Episodes of a random policy, with returns drawn so that every group has a signal."""
    trajectories = tiny_rollout(cfg, tiny_policy(cfg), tasks=4, group_size=3)
    rng = np.random.default_rng(0)
    for trajectory in trajectories:
        for step in trajectory.steps:
            step.reward = float(rng.normal())
    return make_batch(trajectories, append_only=cfg.rollout.context == "transcript")


def opened(cfg: TrainConfig, ranks: Ranks, *, shard: int | None = None, frees: bool = True) -> Learner:
    """What learns, from the same random weights each time, on each number of ranks; spread as by default."""
    policy = tiny_policy(cfg)
    reference = policy.frozen_copy() if cfg.algo.loss.kl_coef else None
    if ranks.size > 1:
        mesh = mesh_of(policy.device, ranks.size, shard)
        policy = policy.spread(mesh, frees=frees)
        reference = reference.spread(mesh, frees=frees) if reference is not None else None
    assert policy.trained.is_gradient_checkpointing == cfg.model.gradient_checkpointing or policy.masters is not None
    budget = TokenBudget(cfg.trainer.microbatch_tokens)
    return Learner(cfg, policy, make_optimizer(policy, cfg.trainer), reference, budget, ranks)


def learned(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    """Scores, metrics, moments and weights after one update; a first step of Adam keeps a tenth of the gradient."""
    if learner.policy.sharding is not None:
        learner.policy.sharding.gather()
    learner.score(batch)
    batch.credit_S = credit_parts(learner.cfg.algo, batch)[0].credit_S
    metrics = learner.step(batch, 0)
    found = {f"metric {name}": torch.tensor(value) for name, value in metrics.items()}
    return found | {"logprob": batch.old_logprob_ST, "entropy": batch.entropy_ST} | state_of(learner)


def state_of(learner: Learner) -> dict[str, Tensor]:
    """Weights and moments, with all their parts."""
    policy, found = learner.policy, {}
    if policy.sharding is not None:
        policy.sharding.scatter()
    for name, parameter in policy.trained.named_parameters():
        found[f"weight {name}"] = whole(parameter.detach()).clone()
        for moment in ("exp_avg", "exp_avg_sq"):
            found[f"{moment} {name}"] = whole(learner.optimizer.state[parameter][moment]).clone()
    return found


def updated(cfg: TrainConfig, ranks: Ranks, *, frees: bool = True) -> dict[str, Tensor]:
    return learned(opened(cfg, ranks, frees=frees), played_batch(cfg))


def one_row(cfg: TrainConfig) -> Batch:
    """Too little for two ranks: one of them only keeps the other company."""
    trajectories = tiny_rollout(cfg, tiny_policy(cfg), tasks=1, group_size=2)
    for number, trajectory in enumerate(trajectories):
        trajectory.steps = trajectory.steps[: 1 - number]
    trajectories[0].steps[0].reward = 1.0
    return make_batch(trajectories, append_only=True)


def one_row_updated(ranks: Ranks) -> dict[str, Tensor]:
    cfg = algorithm_config("grpo", "trainer.minibatches=1")
    return learned(opened(cfg, ranks), one_row(cfg))


def saved(ranks: Ranks, out: Path, *, shard: int | None = None) -> dict[str, Tensor]:
    """An update, kept in `out`/SIZE/checkpoints."""
    cfg = algorithm_config("empg")
    learner = opened(cfg, ranks, shard=shard)
    found = learned(learner, played_batch(cfg))
    assert learner.save(out / str(ranks.size), TrainState(update=1))
    return found


def resumed(ranks: Ranks, folder: Path) -> dict[str, Tensor]:
    """What comes back from a run's newest checkpoint."""
    cfg, (checkpoint,) = algorithm_config("empg"), all_checkpoints(folder)
    policy = reloaded(tiny_policy(cfg), checkpoint / MODEL, cfg.model)
    if ranks.size > 1:
        policy = policy.spread(mesh_of(policy.device, ranks.size, None), frees=True)
    optimizer = make_optimizer(policy, cfg.trainer)
    load_optimizer(checkpoint, optimizer, policy)
    return state_of(Learner(cfg, policy, optimizer, None, TokenBudget(1), ranks))


SMALL_WORLD = ("benchmark.world.scale=0.1", "benchmark.world.train_questions=40", "benchmark.world.test_questions=2")


def run_words(benchmark: str) -> list[str]:
    """A run of one update of the agent that ships for a benchmark."""
    return [
        f"experiment={benchmark}",
        "trainer.updates=1",
        "trainer.tasks_per_update=2",
        "trainer.device=cpu",
        "trainer.threads=1",
        "benchmark.eval_tasks=4",
        "logger.wandb.mode=disabled",
        "logger.console=quiet",
        *(SMALL_WORLD if benchmark == "deepsearch" else ()),
    ]


def run_of(benchmark: str, ranks: Ranks, out: Path) -> dict[str, Tensor]:
    """The whole loop, whose rows are in `out`/BENCHMARK."""
    folder = out / benchmark
    train(config.load([*run_words(benchmark), "dist=node", f"dist.processes={ranks.size}"]), folder, ranks)
    return {}


def ended(words: Sequence[str], ranks: Ranks, folder: Path) -> dict[str, Tensor]:
    """A run on ALFWorld that the first rank ends: exit codes, and who leaves the words to the first."""
    settings = ["experiment=smoke", "trainer.device=cpu", "logger.wandb.mode=disabled", "logger.console=quiet", *words]
    try:
        train(config.load([*settings, "dist=node", f"dist.processes={ranks.size}"]), folder, ranks)
    except UserError as error:
        code, is_silent = ranks.of_all(error.exit_code), ranks.of_all(isinstance(error, Ended))
    return {"code": torch.tensor(code), "is_silent": torch.tensor(is_silent)}


NO_SIGNAL = ("benchmark.max_steps=1", "trainer.health.no_signal_updates=1")
"""Nothing is solved in one step."""
ENDS: Mapping[str, Sequence[str]] = {
    "refused": ("rollout.max_context_tokens=400000000",),
    "first_batch": (*NO_SIGNAL, "trainer.health.preflight_episodes=1", "trainer.health.preflight=stop"),
    "health_stop": (*NO_SIGNAL, "trainer.health.stop=true"),
}
BF16 = ("model.dtype=bfloat16", "model.param_dtype=float32", "model.gradient_checkpointing=true")
JOBS: Mapping[str, Callable[[Ranks, Path], dict[str, Tensor]]] = {
    **{algo: (lambda ranks, _, algo=algo: updated(algorithm_config(algo), ranks)) for algo in ALGORITHMS},
    "window": lambda ranks, _: updated(algorithm_config("empg", "rollout=window"), ranks),
    "whole": lambda ranks, _: updated(algorithm_config("empg"), ranks, frees=False),
    "checkpointing": lambda ranks, _: updated(algorithm_config("empg", "model.gradient_checkpointing=true"), ranks),
    "bf16": lambda ranks, _: updated(algorithm_config("empg", *BF16), ranks),
    "one_row": lambda ranks, _: one_row_updated(ranks),
    "saved": saved,
    "resumed": lambda ranks, out: resumed(ranks, out / str(ranks.size)),
    "from_one": lambda ranks, out: resumed(ranks, out / "1"),
    "webshop": lambda ranks, out: run_of("webshop", ranks, out),
    "deepsearch": lambda ranks, out: run_of("deepsearch", ranks, out),
    "ahead": lambda ranks, _: played_ahead(ranks),
    **{name: (lambda ranks, out, name=name: ended(ENDS[name], ranks, out / name)) for name in ENDS},
    "two_by_two": lambda ranks, out: saved(ranks, out, shard=2),
}


def rank_main(rank: int, size: int, port: int, out: Path, jobs: Sequence[str]) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, size, rank == 0, timedelta(seconds=LIMIT_S))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    for job in jobs:
        found = JOBS[job](Ranks(rank, size), out)
        if rank == 0:
            torch.save(found, out / f"{job}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main(out: Path, launches: Sequence[str]) -> None:
    """Forks, so that the imports, which take longer than the work, are made once."""
    context = multiprocessing.get_context("fork")
    for launch in launches:
        size, _, jobs = launch.partition(":")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [
            context.Process(target=rank_main, args=(rank, int(size), port, out, jobs.split(",")))
            for rank in range(int(size))
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        if any(rank.exitcode for rank in ranks):
            sys.exit(f"{launch}: exit codes {[rank.exitcode for rank in ranks]}")


def together(out: Path, launches: Mapping[int, Sequence[str]]) -> dict[str, dict[str, Tensor]]:
    """The results of jobs, by the number of ranks that compute them."""
    words = [f"{size}:{','.join(jobs)}" for size, jobs in launches.items()]
    command = [sys.executable, "-m", "tests.support.rank_jobs", str(out), *words]
    subprocess.run(command, cwd=ROOT, check=True, timeout=LIMIT_S)
    return {job: torch.load(out / f"{job}.pt", weights_only=True) for jobs in launches.values() for job in jobs}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
