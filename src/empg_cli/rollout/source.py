"""The trajectories of one update: play tasks, and replace groups that carry no signal (DAPO's dynamic sampling)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from empg_cli.agents.agent import AgentMaker
from empg_cli.algorithms.filtering import informative
from empg_cli.benchmarks.base import Benchmark, tallies_of
from empg_cli.config.schema import TrainConfig
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.collect import collect, refuse_if_nothing_fits
from empg_cli.rollout.engine import Engine
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.masking import count_masked, trainable
from empg_cli.rollout.outcomes import describe_rollout
from empg_cli.rollout.tasks import training_tasks
from empg_cli.runs.checkpoint import TrainState
from empg_cli.services.tally import FailedCalls
from empg_cli.types import Progress, Trajectory

log = logging.getLogger(__name__)

_STREAM = 3
"""Keeps this use of the seed apart from others."""


class Source:
    """Where the trajectories that train come from."""

    def __init__(
        self,
        cfg: TrainConfig,
        engine: Engine[int],
        benchmark: Benchmark,
        make_agent: AgentMaker[int],
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """progress: told how many episodes of a batch have ended, of those that this rank plays."""
        self._cfg, self._engine, self._benchmark = cfg, engine, benchmark
        self._make_agent, self._progress, self._ranks = make_agent, progress, ranks
        self._tasks = benchmark.tasks("train")
        self._rules = episode_rules(cfg.rollout, cfg.benchmark, temperature=cfg.rollout.temperature)

    def next(self, state: TrainState) -> tuple[list[Trajectory], dict[str, float]]:
        """Play `tasks_per_update` groups; counts what was played in `state` and advances its `next_task`.

        With `drop_uniform_groups`, groups whose members all got the same task reward are dropped and further batches
        are played until the update is full (surplus groups are cut) or `max_resamples` more batches were played. An
        update that is not full by then is made from what there is, or, if that is nothing, from the last batch as it
        came.

        Returns:
            The episodes of the groups that are kept, unscored ones too, and what to log about all that was played.

        Raises:
            NothingFits: every first prompt was too long for the context.
            ServerDown, EnvironmentsDown: too much of it stayed without an answer, or all without a verdict.
        """
        calls = FailedCalls(tallies_of(self._benchmark), self._cfg.trainer.health.max_failed_calls)
        wanted, sampling = self._cfg.trainer.tasks_per_update, self._cfg.algo.sampling
        kept: list[Trajectory] = []
        kept_groups: set[int] = set()
        all_played: list[Trajectory] = []
        dropped_groups = batches = masked = 0
        while True:
            played = self._play(state, batches)
            batches += 1
            calls.check(self._ranks)
            masked += count_masked(played)
            all_played += played
            if not sampling.drop_uniform_groups:
                kept = played
                break
            groups = informative_groups(played)
            dropped_groups += wanted - len(groups)
            chosen = set(groups[: wanted - len(kept_groups)])
            kept_groups |= chosen
            kept += [trajectory for trajectory in played if trajectory.group in chosen]
            assert sampling.max_resamples is not None, "checked by the schema"
            if len(kept_groups) == wanted or batches > sampling.max_resamples:
                break
        refuse_if_nothing_fits(all_played, self._rules)
        if not kept:
            log.warning("no group with differing rewards in %d batches; the last batch is used as it came", batches)
        metrics = describe_played(all_played, self._cfg, masked=masked, uniform=dropped_groups, batches=batches)
        return kept or played, metrics

    def paused(self) -> AbstractContextManager[None]:
        """While somebody else plays: between two calls of `next` nothing is played here."""
        return nullcontext()

    def _play(self, state: TrainState, batch: int) -> list[Trajectory]:
        """The next tasks of the stream, as batch number `batch` of the update that `state` stands before."""
        cfg, wanted = self._cfg, self._cfg.trainer.tasks_per_update
        tasks = training_tasks(self._tasks, state.next_task, wanted, seed=cfg.seed)
        state.next_task += wanted
        played = collect(
            self._engine,
            self._benchmark,
            self._make_agent,
            tasks,
            group_size=cfg.algo.group_size,
            rules=self._rules,
            stream=(_STREAM, cfg.seed, state.update, batch),
            first_group=batch * wanted,
            progress=self._progress,
            ranks=self._ranks,
        )
        state.count(played)
        return played


def describe_played(
    played: Sequence[Trajectory], cfg: TrainConfig, *, masked: int, uniform: int, batches: int
) -> dict[str, float]:
    """What to log about all that was played for an update.

    Args:
        masked: episodes that do not train for want of a verdict.
        uniform: groups that dynamic sampling dropped.
        batches: of `tasks_per_update` groups each, the last one perhaps smaller.
    """
    metrics = describe_rollout(played, cfg.benchmark.name)
    metrics["rollout/masked_trajectories"] = float(masked)
    if cfg.algo.sampling.drop_uniform_groups:
        metrics["dapo/filtered_groups"] = float(uniform)
        metrics["dapo/resampled_batches"] = float(batches - 1)
    return metrics


def informative_groups(played: Sequence[Trajectory]) -> list[int]:
    """Groups whose judged members got different task rewards, in the order they were played."""
    fair = trainable(played)
    keep_N = informative(
        torch.tensor([trajectory.task_reward for trajectory in fair]),
        torch.tensor([trajectory.group for trajectory in fair], dtype=torch.long),
    ).tolist()
    return list(dict.fromkeys(t.group for t, keep in zip(fair, keep_N, strict=True) if keep))
