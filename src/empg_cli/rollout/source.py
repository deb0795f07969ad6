"""The trajectories of one update: play tasks, and replace groups that carry no signal (DAPO's dynamic sampling)."""

from __future__ import annotations

import logging

import torch

from empg_cli.agents.agent import AgentMaker
from empg_cli.algorithms.filtering import informative
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.metrics import describe_rollout
from empg_cli.observe.observer import Observer
from empg_cli.rollout.collect import collect, refuse_if_nothing_fits
from empg_cli.rollout.engine import Engine
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.masking import count_masked, trainable
from empg_cli.rollout.tasks import training_tasks
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Trajectory

log = logging.getLogger(__name__)

_STREAM = 3
"""Keeps this use of the seed apart from others."""


def sample_trajectories(
    cfg: TrainConfig,
    engine: Engine[int],
    benchmark: Benchmark,
    make_agent: AgentMaker[int],
    state: TrainState,
    run: Observer,
) -> tuple[list[Trajectory], dict[str, float]]:
    """Play `tasks_per_update` groups; counts what was played in `state` and advances its `next_task`.

    With `drop_uniform_groups`, groups whose members all got the same task reward are dropped and further batches are
    played until the update is full (surplus groups are cut) or `max_resamples` more batches were played. An update
    that is not full by then is made from what there is, or, if that is nothing, from the last batch as it came.

    Returns:
        The episodes of the groups that are kept, unscored ones too, and what to log about all that was played.

    Raises:
        NothingFits: every first prompt was too long for the context.
    """
    wanted = cfg.trainer.tasks_per_update
    rules = episode_rules(cfg.rollout, cfg.benchmark, temperature=cfg.rollout.temperature)
    kept: list[Trajectory] = []
    kept_groups: set[int] = set()
    all_played: list[Trajectory] = []
    dropped_groups = batches = masked = 0
    while True:
        tasks = training_tasks(benchmark.tasks("train"), state.next_task, wanted, seed=cfg.seed)
        state.next_task += wanted
        played = collect(
            engine,
            benchmark,
            make_agent,
            tasks,
            group_size=cfg.algo.group_size,
            rules=rules,
            stream=(_STREAM, cfg.seed, state.update, batches),
            first_group=batches * wanted,
            progress=run.progress("rollout"),
        )
        batches += 1
        masked += count_masked(played)
        all_played += played
        state.count(played)
        if not cfg.algo.sampling.drop_uniform_groups:
            kept = played
            break
        assert cfg.algo.sampling.max_resamples is not None, "checked by the schema"
        fair = trainable(played)
        keep_N = informative(
            torch.tensor([trajectory.task_reward for trajectory in fair]),
            torch.tensor([trajectory.group for trajectory in fair], dtype=torch.long),
        ).tolist()
        groups = list(dict.fromkeys(t.group for t, keep in zip(fair, keep_N, strict=True) if keep))
        dropped_groups += wanted - len(groups)
        chosen = set(groups[: wanted - len(kept_groups)])
        kept_groups |= chosen
        kept += [trajectory for trajectory in played if trajectory.group in chosen]
        if len(kept_groups) == wanted or batches > cfg.algo.sampling.max_resamples:
            break
    refuse_if_nothing_fits(all_played, rules)
    if not kept:
        log.warning("no group with differing rewards in %d batches; the last batch is used as it came", batches)
    metrics = describe_rollout(all_played, cfg.benchmark.name) | {"rollout/masked_trajectories": float(masked)}
    if cfg.algo.sampling.drop_uniform_groups:
        metrics["dapo/filtered_groups"] = float(dropped_groups)
        metrics["dapo/resampled_batches"] = float(batches - 1)
    return kept or played, metrics
