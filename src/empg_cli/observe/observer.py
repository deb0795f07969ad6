"""What watches a run while it trains: clocks, sinks, dashboard, health checks, and the signals that ask it to stop."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any, NoReturn

from torch import Tensor

from empg_cli.algorithms.assemble import CreditParts
from empg_cli.config.outside import addresses, repeated
from empg_cli.config.schema import TrainConfig
from empg_cli.invocation import from_here, resume_command
from empg_cli.observe.clocks import Clocks
from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.health import HealthStop
from empg_cli.observe.health_watch import HealthWatch
from empg_cli.observe.identity import RunIdentity
from empg_cli.observe.sinks import Fan, open_sinks
from empg_cli.observe.step_histograms import step_histograms
from empg_cli.observe.stop import Stopped, Stopper
from empg_cli.observe.summary import RunReport, print_run_summary
from empg_cli.runs.checkpoint import TrainState, all_checkpoints
from empg_cli.runs.evaluations import (
    Evaluation,
    SuccessRate,
    group_lines,
    read_evaluations,
    read_groups,
    shown,
    write_evaluation,
)
from empg_cli.runs.facts import cell_hash, config_hash
from empg_cli.runs.folder import OpenFolder
from empg_cli.runs.rows import read_rows
from empg_cli.runs.run_file import read_run_file, update_run_file
from empg_cli.runs.trajectories import TextOf, save_trajectories
from empg_cli.types import Batch, Progress, Trajectory

log = logging.getLogger(__name__)

Measured = tuple[int, SuccessRate]
"""An evaluation: the update it followed, and what came out."""


class Observer:
    """Made by `observing`."""

    def __init__(self, cfg: TrainConfig, folder: OpenFolder, sinks: Fan, dashboard: Dashboard, stop: Stopper) -> None:
        self.stop = stop
        """Signals that ask the run to end."""
        self.health = HealthWatch(
            cfg.trainer.health,
            folder.path,
            max_grad_norm=cfg.trainer.max_grad_norm,
            history=read_rows(folder.path / "metrics.jsonl") if folder.resume_from else {},
            done=folder.done,
        )
        self._cfg, self._folder, self._sinks, self._dashboard = cfg, folder, sinks, dashboard
        self._clocks = Clocks()
        self.timed = self._clocks.timed
        """Around a part of an update: its wall time stands in the next row."""
        self._last_row: dict[str, float] = {}
        self._text_of: TextOf | None = None
        self._outside = repeated(addresses(cfg.model_dump()))

    def progress(self, phase: str) -> Progress:
        """To be told how far the phase is, for the dashboard."""
        return lambda done, total: self._dashboard.phase(phase, done, total)

    def record_policy(self, fingerprint: Mapping[str, Any], text_of: TextOf) -> None:
        """Note the initial weights in run.json; a resumed run must start from the same ones. From now on the texts of
        trajectories are kept too."""
        self._text_of = text_of
        earlier = read_run_file(self._folder.path).get("model")
        if self._folder.resume_from is not None and earlier and earlier["digest"] != fingerprint["digest"]:
            log.warning("the initial policy differs from the one this run began with: the KL reference changes")
        update_run_file(self._folder.path, model=dict(fingerprint))

    def log(self, state: TrainState, metrics: Mapping[str, float], evaluation: Evaluation | None = None) -> None:
        """One row of metrics for the updates done so far, with the evaluation that followed, if any."""
        row = {
            "train/update": float(state.update),
            "env/steps": float(state.env_steps),
            "env/episodes": float(state.episodes),
            "env/tokens": float(state.tokens),
            **metrics,
            **(evaluation.metrics(self._cfg.benchmark.name) if evaluation else {}),
            **self._clocks.row(state.tokens),
        }
        self._last_row = row
        self._sinks.log(state.update, row)
        if state.update:
            self._dashboard.update(state.update, row)
        if evaluation:
            self._record_evaluation(state.update, evaluation)

    def _record_evaluation(self, update: int, evaluation: Evaluation) -> None:
        write_evaluation(self._folder.path, update, evaluation)
        kept = evaluation.trajectories[: self._cfg.logger.trajectories]
        save_trajectories(self._folder.path, update, "eval", kept, text_of=self._text_of)
        self._dashboard.evaluation(update, shown(asdict(evaluation.total)))
        for name, text in group_lines(evaluation.averages):
            self._dashboard.message(f"evaluation at update {update}: {name} success_rate={text}")

    def log_histograms(self, update: int, batch: Batch, parts: CreditParts, was_won_S: Tensor) -> None:
        if values := step_histograms(parts, batch.next_S, was_won_S):
            self._sinks.histograms(update, values)

    def keep_trajectories(self, update: int, trajectories: Sequence[Trajectory], parts: CreditParts) -> None:
        """Save the first trajectories of the update just done, with what made the credit of each step."""
        if kept := trajectories[: self._cfg.logger.trajectories]:
            save_trajectories(self._folder.path, update, "train", kept, parts, text_of=self._text_of)

    @property
    def must_stop(self) -> bool:
        """A signal or a health check asks to save and end."""
        return self.stop.requested or self.health.stop_reason is not None

    def raise_if_stopped(self, state: TrainState) -> None:
        """Leave the loop when a signal or a health check asked for it. Call after a checkpoint."""
        if self.stop.requested:
            self.finish(state)
            self.stop.hand_over()
            raise Stopped(self.stop.signum, self.again)
        if self.health.stop_reason is not None and state.update < self._cfg.trainer.updates:
            self.finish(state)
            raise HealthStop(f"stopped by trainer.health.stop after update {state.update}, with a checkpoint\n"
                             f"  {self.health.stop_reason}\n  To go on all the same:  {self.again}")  # fmt: skip

    @property
    def again(self) -> str:
        """The command that goes on."""
        return resume_command(from_here(self._folder.path), self._outside)

    def raise_gone(self, state: TrainState, reason: str) -> NoReturn:
        """Leave the loop since what the run plays with, such as a server, is gone. Call after a checkpoint."""
        checkpoints = all_checkpoints(self._folder.path)
        if not checkpoints:
            raise HealthStop(
                f"stopped before the first update: {reason}\n  Nothing was trained: start anew once it is there again."
            )
        self.finish(state)
        raise HealthStop(f"stopped after update {state.update}: {reason}\n"
                         "  What was played since then is neither trained on nor recorded. The last good checkpoint is "
                         f"{from_here(checkpoints[-1])}\n"
                         f"  To go on, once it is there again:  {self.again}")  # fmt: skip

    def finish(self, state: TrainState) -> None:
        """Write the summary, close the dashboard and print what there is to say; also when the run was stopped."""
        evaluations = read_evaluations(self._folder.path)
        best = max(evaluations, key=lambda measured: measured[1]["success_rate"], default=None)
        self._sinks.summary(
            {
                "updates": state.update,
                "config_hash": config_hash(self._cfg),
                "cell_hash": cell_hash(self._cfg),
                "env/episodes": state.episodes,
                **self.health.monitor.metrics(),
                **({f"last/{key}": value for key, value in evaluations[-1][1].items()} if evaluations else {}),
                **({"best/update": best[0], "best/success_rate": best[1]["success_rate"]} if best else {}),
            }
        )
        report = self._report(state.update, evaluations, best)
        self._dashboard.close()  # a panel that goes later takes the lines above it along
        print_run_summary(report)

    def _report(self, update: int, evaluations: Sequence[Measured], best: Measured | None) -> RunReport:
        folder, checkpoints = self._folder, all_checkpoints(self._folder.path)
        return RunReport(
            title=title_of(self._cfg, folder),
            run_dir=from_here(folder.path),
            checkpoint=from_here(checkpoints[-1]) if checkpoints else None,
            updates=update,
            total_updates=self._cfg.trainer.updates,
            wall_s=self._clocks.elapsed_s(),
            data=folder.data_source,
            task_kinds=folder.task_kinds,
            first=evaluations[0] if evaluations else None,
            best=best,
            last=evaluations[-1] if evaluations else None,
            groups=read_groups(folder.path),
            kl=self._last_row.get("actor/kl_loss"),
            entropy=self._last_row.get("actor/entropy"),
            kl_spikes=self.health.monitor.kl_spikes if "actor/kl_loss" in self._last_row else None,
            warnings=self.health.monitor.warned,
            outside=self._outside,
            wandb=self._sinks.pointers.get("wandb"),
        )


@contextmanager
def observing(cfg: TrainConfig, folder: OpenFolder) -> Iterator[Observer]:
    """Keep sinks, dashboard and signal handlers open while the block trains; the sinks are told how it ended."""
    sinks = open_sinks(
        cfg.logger,
        folder.path,
        run_config=cfg.model_dump(),
        identity=_identity(cfg),
        resume_from_update=folder.done + 1 if folder.resume_from else None,
        brought=cfg.logger.sinks,
    )
    exit_code = 1
    with ExitStack() as stack:
        stop = stack.enter_context(Stopper())
        title = title_of(cfg, folder)
        dashboard = stack.enter_context(Dashboard(cfg.logger.console, title, cfg.trainer.updates, done=folder.done))
        if folder.resume_from:
            dashboard.message(f"resumed from {folder.resume_from}, update {folder.done}")
        try:
            yield Observer(cfg, folder, sinks, dashboard, stop)
            exit_code = 0
        except HealthStop as stopped:
            exit_code = stopped.exit_code
            raise
        finally:
            sinks.close(128 + stop.signum if stop.signum else exit_code)


def title_of(cfg: TrainConfig, folder: OpenFolder) -> str:
    return f"{cfg.algo.name} on {cfg.benchmark.name} ({folder.data_source} data), seed {cfg.seed}"


def _identity(cfg: TrainConfig) -> RunIdentity:
    group = cfg.logger.wandb.group or f"{cfg.benchmark.name}-{cfg.algo.name}-{config_hash(cfg)[:6]}"
    tags = [cfg.benchmark.name, cfg.algo.name, cfg.model.name, *cfg.logger.wandb.tags]
    return RunIdentity.of_seed(group, cfg.seed, tags=tags)
