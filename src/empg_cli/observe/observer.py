"""What watches a run while it trains: clocks, sinks, dashboard, health checks, watchdog, and how the run ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from empg_cli.algorithms.assemble import CreditParts
from empg_cli.config.outside import addresses, repeated
from empg_cli.config.schema import TrainConfig
from empg_cli.files import sync, write_in_folder
from empg_cli.invocation import from_here, resume_command
from empg_cli.model.memory import is_out_of_memory, out_of_memory
from empg_cli.observe.clocks import Clocks
from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.health import HealthStop
from empg_cli.observe.health_watch import HealthWatch
from empg_cli.observe.identity import RunIdentity, identity_of, tell_run_file
from empg_cli.observe.sinks import Fan, open_sinks
from empg_cli.observe.step_histograms import step_histograms
from empg_cli.observe.stop import Stopped
from empg_cli.observe.summary import RunReport, print_run_summary
from empg_cli.observe.tracked import made_of
from empg_cli.observe.trackers import TITLES
from empg_cli.observe.watchdog import Watchdog
from empg_cli.pulse import beat, enter
from empg_cli.pulse import phase as phase_now
from empg_cli.runs.abandoned import branches
from empg_cli.runs.began_with import note_policy
from empg_cli.runs.checkpoint import TrainState, all_checkpoints, best_checkpoint, is_saved, load_state, not_saved
from empg_cli.runs.evaluations import (
    Evaluation,
    SuccessRate,
    group_lines,
    read_evaluations,
    read_groups,
    shown,
    write_evaluation,
)
from empg_cli.runs.facts import MODEL, cell_hash, config_hash
from empg_cli.runs.folder import OpenFolder
from empg_cli.runs.identity import may_change
from empg_cli.runs.patience import Patience
from empg_cli.runs.rows import Row, drop_rows_from, read_rows
from empg_cli.runs.trajectories import TextOf, save_trajectories, trajectory_rows
from empg_cli.signals import Interrupted, asked, exit_code, hand_over
from empg_cli.types import Batch, Progress, Trajectory

log = logging.getLogger(__name__)

Measured = tuple[int, SuccessRate]
"""An evaluation: the update it followed, and what came out."""


class Observer:
    """Made by `observing`."""

    def __init__(
        self,
        cfg: TrainConfig,
        folder: OpenFolder,
        sinks: Fan,
        dashboard: Dashboard,
        history: Mapping[int, Row],
        tokens: int = 0,
    ) -> None:
        """history: the rows of a resumed run; tokens: that it has sampled before."""
        self.health = HealthWatch(
            cfg.trainer.health,
            folder.path,
            max_grad_norm=cfg.trainer.max_grad_norm,
            history=history,
            done=folder.done,
        )
        self._cfg, self._folder, self._sinks, self._dashboard = cfg, folder, sinks, dashboard
        self._files = Patience("evaluations and trajectories", str(folder.path))
        self._clocks = Clocks(tokens)
        self._last_row: dict[str, float] = {}
        self._text_of: TextOf | None = None
        self._outside = repeated(addresses(cfg.model_dump()))
        self._is_finished = False

    @property
    def again(self) -> str:
        """The command that goes on."""
        return resume_command(from_here(self._folder.path), self._outside)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Around a part of an update: its wall time stands in the next row, its name in what is said about trouble."""
        enter(phase)
        beat()
        with self._clocks.timed(phase):
            yield

    def progress(self, phase: str) -> Progress:
        """To be told how far the phase is, for the dashboard."""

        def report(done: int, total: int) -> None:
            beat()
            enter(phase)
            self._dashboard.phase(phase, done, total)

        return report

    def keep_texts(self, text_of: TextOf) -> None:
        """From now on the texts of trajectories are kept too."""
        self._text_of = text_of

    def record_policy(self, fingerprint: Mapping[str, Any], warm_start: str | None = None) -> None:
        """Note the initial weights in run.json.

        Args:
            warm_start: its key in the cache; None = there was none.

        Raises:
            UserError: a run that goes on began with other weights.
        """
        is_computed = self._cfg.trainer.warm_start.is_on or self._cfg.model.init == "scratch"
        goes_on = self._folder.resume_from is not None
        if note_policy(self._folder.path, fingerprint, warm_start, goes_on=goes_on, is_computed=is_computed):
            self._sinks.facts(made_of({MODEL: dict(fingerprint)}))

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
        write_evaluation(self._folder.path, update, evaluation, write=self._write)
        kept = evaluation.trajectories[: self._cfg.logger.trajectories]
        save_trajectories(self._folder.path, update, "eval", kept, text_of=self._text_of, write=self._write)
        self._sinks.table(update, "evaluations", evaluation.tasks)
        self._sinks.table(update, "trajectories", partial(trajectory_rows, kept))
        self._dashboard.evaluation(update, shown(asdict(evaluation.total)))
        for name, text in group_lines(evaluation.averages):
            self._dashboard.message(f"evaluation at update {update}: {name} success_rate={text}")

    def log_histograms(self, update: int, batch: Batch, parts: CreditParts, was_won_S: Tensor) -> None:
        if values := step_histograms(parts, batch.next_S, was_won_S):
            self._sinks.histograms(update, values)

    def keep_trajectories(self, update: int, trajectories: Sequence[Trajectory], parts: CreditParts) -> None:
        """Save the first trajectories of the update just done, with what made the credit of each step."""
        if kept := trajectories[: self._cfg.logger.trajectories]:
            save_trajectories(self._folder.path, update, "train", kept, parts, text_of=self._text_of, write=self._write)

    def _write(self, path: Path, text: str) -> None:
        self._files.do(partial(write_in_folder, path, text))

    def sync(self, state: TrainState) -> bool:
        """All that was logged so far is on the disk, so that a checkpoint may follow it; False, and said, where that
        refuses a part of it."""
        is_written = self._is_on_disk()
        if not is_written:
            said = "checkpoint %d is left out: the disk has not taken all rows before it yet (%s)"
            log.error(said, state.update, from_here(self._folder.path))
        return is_written

    def _is_on_disk(self) -> bool:
        names = partial(sync, self._folder.path)
        return all([self._sinks.sync(), self.health.sync(), self._files.settle() and self._files.attempt(names)])

    def raise_if_unsaved(self, state: TrainState, *, is_saved: bool) -> None:
        """At the end of a run.

        Args:
            is_saved: the disk took the last checkpoint.

        Raises:
            NotSaved: it did not, or it lacks a part of what was logged.
        """
        is_written = self._is_on_disk() and not self._sinks.unwritten
        if not (is_saved and is_written):
            raise not_saved(self._folder.path, state.update)

    @property
    def must_stop(self) -> bool:
        """A health check asks to save and end."""
        return self.health.stop_reason is not None

    def raise_if_stopped(self, state: TrainState) -> None:
        """Leave the loop when a health check asked for it. Call after a checkpoint."""
        if self.health.stop_reason is not None and state.update < self._cfg.trainer.updates:
            self.finish(state)
            has_one = is_saved(self._folder.path, state.update)
            saved = "with a checkpoint" if has_one else "without a checkpoint, which the disk refused"
            raise HealthStop(f"stopped by trainer.health after update {state.update}, {saved}\n"
                             f"  {self.health.stop_reason}\n  To go on all the same:  {self.again}")  # fmt: skip
        if self.health.stop_reason is not None:
            log.warning("the last update is done all the same: %s", self.health.stop_reason)

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
        """Write the summary, close the dashboard and say what there is to say, once; also when the run was stopped."""
        if self._is_finished:
            return
        self._is_finished = True
        evaluations = read_evaluations(self._folder.path)
        best = max(evaluations, key=lambda measured: measured[1]["success_rate"], default=None)
        self._sinks.summary(
            {
                "updates": state.update,
                "config_hash": config_hash(self._cfg, self._folder.bends),
                "cell_hash": cell_hash(self._cfg, self._folder.bends),
                "env/episodes": state.episodes,
                **self.health.monitor.metrics(),
                **({f"last/{key}": value for key, value in evaluations[-1][1].items()} if evaluations else {}),
                **({"best/update": best[0], "best/success_rate": best[1]["success_rate"]} if best else {}),
            }
        )
        report = self._report(state.update, evaluations, best)
        self._dashboard.close()  # a panel that goes later takes the lines above it along
        try:
            print_run_summary(report)
        except OSError as error:  # the run is over, and its folder has all of this
            log.warning("the summary cannot be shown: %s", error.strerror or error)

    def _report(self, update: int, evaluations: Sequence[Measured], best: Measured | None) -> RunReport:
        folder, checkpoints = self._folder, all_checkpoints(self._folder.path)
        kept = best_checkpoint(folder.path)
        return RunReport(
            title=title_of(self._cfg, folder),
            run_dir=from_here(folder.path),
            checkpoint=from_here(checkpoints[-1]) if checkpoints else None,
            best_checkpoint=f"{from_here(kept.checkpoint)}  ({kept.success_rate:.1%})" if kept else None,
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
            trackers={TITLES[name]: pointer for name, pointer in self._sinks.pointers.items() if name in TITLES},
            left=[
                f"{from_here(folder.path / one['folder'])}  (updates {max(one['after'], 0) + 1} to {one['until']})"
                for one in branches(folder.path)
            ],
        )


@contextmanager
def observing(cfg: TrainConfig, folder: OpenFolder) -> Iterator[Observer]:
    """Keep sinks, dashboard and watchdog open while the block trains; the sinks are told how it ended.

    Raises:
        Stopped: a signal interrupted the block; says how to go on.
        OutOfMemory: the memory did not suffice; says what helps.
    """
    begun = load_state(folder.resume_from) if folder.resume_from else None
    if begun:
        drop_rows_from(folder.path / "metrics.jsonl", begun.logged + 1)
    sinks = open_sinks(
        cfg.logger,
        folder.path,
        run_config=cfg.model_dump(),
        identity=_identity(cfg, folder),
        resume_from_update=folder.done + 1 if folder.resume_from else None,
        brought=cfg.logger.sinks,
    )
    history: dict[int, Row] = read_rows(folder.path / "metrics.jsonl") if begun else {}
    if begun and begun.unlogged:
        history[begun.update] = {**begun.unlogged}
    status = 1
    enter("loading")  # a sweep may have run another job in this process
    with ExitStack() as stack:
        title = title_of(cfg, folder)
        dashboard = stack.enter_context(Dashboard(cfg.logger.console, title, cfg.trainer.updates, done=folder.done))
        stack.enter_context(Watchdog(cfg.trainer.watchdog, folder.path))
        if folder.resume_from:
            dashboard.message(f"resumed from {folder.resume_from}, update {folder.done}")
        observer = Observer(cfg, folder, sinks, dashboard, history, begun.tokens if begun else 0)
        try:
            yield observer
            status = 0
        except HealthStop as stopped:
            status = stopped.exit_code
            raise
        except Interrupted as interrupted:
            status = exit_code(interrupted.signum)
            hand_over()
            raise Stopped(interrupted.signum, observer.again) from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            status = 2
            raise out_of_memory(error, phase_now(), cfg, observer.again, may_change=may_change) from error
        finally:
            sinks.close(exit_code(asked()) if asked() else status)
    if sinks.unwritten:
        raise not_saved(folder.path, cfg.trainer.updates)


def title_of(cfg: TrainConfig, folder: OpenFolder) -> str:
    return f"{cfg.algo.name} on {cfg.benchmark.name} ({folder.data_source} data), seed {cfg.seed}"


def _identity(cfg: TrainConfig, folder: OpenFolder) -> RunIdentity:
    """A run that goes on keeps its name and group, also where it is to go on for longer."""
    group = f"{cfg.benchmark.name}-{cfg.algo.name}-{config_hash(cfg)[:6]}"
    default = RunIdentity.of_seed(group, cfg.seed, tags=[cfg.benchmark.name, cfg.algo.name, cfg.model.name])
    identity = identity_of(cfg.logger.wandb, default, folder.path if folder.resume_from else None)
    tell_run_file(folder.path, name=identity.name, group=identity.group)
    return identity
