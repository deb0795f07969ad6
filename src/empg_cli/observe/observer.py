"""A run while it lives: its folder, sinks, dashboard, clocks and stop signals."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from empg_cli import config
from empg_cli.algorithms.assemble import CreditParts
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.outside import addresses, repeated
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.evaluation.evaluate import Evaluation
from empg_cli.invocation import from_here
from empg_cli.model.loading import model_fingerprint
from empg_cli.model.policy import Policy
from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.health import HealthStop
from empg_cli.observe.health_watch import HealthWatch
from empg_cli.observe.panel import Evaluation as ShownEvaluation
from empg_cli.observe.sinks import Fan, RunIdentity, open_sinks
from empg_cli.observe.step_histograms import step_histograms
from empg_cli.observe.stop import Stopped, Stopper
from empg_cli.observe.summary import RunReport, print_run_summary, resume_command
from empg_cli.runs.checkpoint import (
    TrainState,
    all_checkpoints,
    find_checkpoint,
    load_state,
    newest_good_checkpoint,
    remove_leftovers,
)
from empg_cli.runs.files import read_run_file, update_run_file, write_atomically
from empg_cli.runs.record import OUTSIDE, PROMPT_DATE, cell_hash, config_hash, prompt_date, run_facts
from empg_cli.runs.rows import read_rows
from empg_cli.runs.trajectories import TextOf, drop_trajectories, save_trajectories, text_with_special_tokens
from empg_cli.types import Batch, Progress, Trajectory

log = logging.getLogger(__name__)

EVALUATIONS = "evaluations"
"""Folder of a run with one file per evaluation."""


class Run:
    def __init__(
        self,
        cfg: TrainConfig,
        run_dir: Path,
        *,
        title: str,
        data: dict[str, Any],
        task_kinds: Sequence[str],
        sinks: Fan,
        dashboard: Dashboard,
        stop: Stopper,
        health: HealthWatch,
        resume_from: Path | None,
        prompt_date: date,
    ) -> None:
        self.cfg, self.run_dir, self.title, self.stop, self.resume_from = cfg, run_dir, title, stop, resume_from
        self._data, self._task_kinds, self.prompt_date = data, task_kinds, prompt_date
        self._sinks, self._dashboard, self.health = sinks, dashboard, health
        self._seconds: dict[str, float] = defaultdict(float)
        self._started = self._last_log = time.perf_counter()
        self._last_row: dict[str, float] = {}
        self._text_of: TextOf | None = None
        self._outside = repeated(addresses(cfg.model_dump()))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to `timing_s/<name>` of the next logged row."""
        start = time.perf_counter()
        yield
        self._seconds[f"timing_s/{name}"] += time.perf_counter() - start

    def progress(self, phase: str) -> Progress:
        return lambda done, total: self._dashboard.phase(phase, done, total)

    def record_policy(self, policy: Policy) -> None:
        """Note the initial weights in run.json; a resumed run must start from the same ones. From now on the texts of
        trajectories are kept too."""
        self._text_of = text_with_special_tokens(policy.tokenizer)
        fingerprint = model_fingerprint(policy)
        earlier = read_run_file(self.run_dir).get("model")
        if self.resume_from is not None and earlier and earlier["digest"] != fingerprint["digest"]:
            log.warning("the initial policy differs from the one this run began with: the KL reference changes")
        update_run_file(self.run_dir, model=fingerprint)

    def log(self, state: TrainState, metrics: dict[str, float], evaluation: Evaluation | None = None) -> None:
        """One row of metrics for the updates done so far, with the evaluation that followed, if any."""
        now = time.perf_counter()
        seconds, self._last_log = now - self._last_log, now
        row = {
            "train/update": float(state.update),
            "env/steps": float(state.env_steps),
            "env/episodes": float(state.episodes),
            "env/tokens": float(state.tokens),
            **metrics,
            **(evaluation.metrics(self.cfg.benchmark.name) if evaluation else {}),
            **self._seconds,
            "perf/time_per_step": seconds,
            "perf/throughput": (state.tokens - self._last_row.get("env/tokens", 0.0)) / seconds,
            "perf/mem_gb": peak_memory_gb(),
        }
        self._seconds.clear()
        self._last_row = row
        self._sinks.log(state.update, row)
        if state.update:
            self._dashboard.update(state.update, row)
        if evaluation:
            self._record_evaluation(state, evaluation)

    def _record_evaluation(self, state: TrainState, evaluation: Evaluation) -> None:
        content = {"update": state.update, **evaluation.as_dict(), "tasks": evaluation.tasks()}
        folder = self.run_dir / EVALUATIONS
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"update-{state.update:06d}.json", json.dumps(content, indent=1) + "\n")
        kept = evaluation.trajectories[: self.cfg.logger.trajectories]
        save_trajectories(self.run_dir, state.update, "eval", kept, text_of=self._text_of)
        self._dashboard.evaluation(state.update, shown(asdict(evaluation.total)))
        for name, text in group_lines(evaluation.averages):
            self._dashboard.message(f"evaluation at update {state.update}: {name} success_rate={text}")

    def log_histograms(self, update: int, batch: Batch, parts: CreditParts, was_won_S: torch.Tensor) -> None:
        if values := step_histograms(parts, batch.next_S, was_won_S):
            self._sinks.histograms(update, values)

    def keep_trajectories(self, state: TrainState, trajectories: Sequence[Trajectory], parts: CreditParts) -> None:
        """Save the first trajectories of the update just done, with what made the credit of each step."""
        if kept := trajectories[: self.cfg.logger.trajectories]:
            save_trajectories(self.run_dir, state.update, "train", kept, parts, text_of=self._text_of)

    @property
    def must_stop(self) -> bool:
        """A signal or a health check asks to save and end."""
        return self.stop.requested or self.health.stop_reason is not None

    def raise_if_stopped(self, state: TrainState) -> None:
        """Leave the loop when a signal or a health check asked for it. Call after a checkpoint."""
        again = resume_command(from_here(self.run_dir), self._outside)
        if self.stop.requested:
            self.finish(state)
            self.stop.hand_over()
            raise Stopped(self.stop.signum, again)
        if self.health.stop_reason is not None and state.update < self.cfg.trainer.updates:
            self.finish(state)
            raise HealthStop(f"stopped by trainer.health.stop after update {state.update}, with a checkpoint\n"
                             f"  {self.health.stop_reason}\n  To go on all the same:  {again}")  # fmt: skip

    def finish(self, state: TrainState) -> None:
        """Write the summary, close the dashboard and print what there is to say; also when the run was stopped."""
        evaluations = read_evaluations(self.run_dir)
        best = max(evaluations, key=lambda measured: measured[1]["success_rate"], default=None)
        summary: dict[str, Any] = {
            "updates": state.update,
            "config_hash": config_hash(self.cfg),
            "cell_hash": cell_hash(self.cfg),
            "env/episodes": state.episodes,
            **self.health.monitor.metrics(),
        }
        if evaluations:
            summary |= {f"last/{key}": value for key, value in evaluations[-1][1].items()}
        if best:
            summary |= {"best/update": best[0], "best/success_rate": best[1]["success_rate"]}
        self._sinks.summary(summary)
        checkpoints = all_checkpoints(self.run_dir)
        report = RunReport(
            title=self.title,
            run_dir=from_here(self.run_dir),
            checkpoint=from_here(checkpoints[-1]) if checkpoints else None,
            updates=state.update,
            total_updates=self.cfg.trainer.updates,
            wall_s=time.perf_counter() - self._started,
            data=self._data["source"],
            task_kinds=self._task_kinds,
            first=evaluations[0] if evaluations else None,
            best=best,
            last=evaluations[-1] if evaluations else None,
            groups=read_groups(self.run_dir),
            kl=self._last_row.get("actor/kl_loss"),
            entropy=self._last_row.get("actor/entropy"),
            kl_spikes=self.health.monitor.kl_spikes if "actor/kl_loss" in self._last_row else None,
            warnings=self.health.monitor.warned,
            outside=self._outside,
            wandb=self._sinks.pointers.get("wandb"),
        )
        self._dashboard.close()  # a panel that goes later takes the lines above it along
        print_run_summary(report)


@contextmanager
def start_run(cfg: TrainConfig, run_dir: Path, benchmark: Benchmark) -> Iterator[Run]:
    """Open the run folder, write what the run is, and keep sinks, dashboard and signal handlers open."""
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    run_dir.mkdir(parents=True, exist_ok=True)
    resume_from = checkpoint_to_resume(cfg.resume, run_dir)
    state = load_state(resume_from) if resume_from else TrainState()
    clear_folder(run_dir, cfg.resume, state.update)
    config.write(cfg, run_dir / "config.yaml")
    data = benchmark.fingerprint()
    today = prompt_date(resume_from)
    facts, earlier = run_facts(cfg, data), read_run_file(run_dir).get(OUTSIDE)
    if resume_from and earlier not in (None, facts[OUTSIDE]):
        log.warning("the code from outside is not what this run began with: %s, now %s", earlier, facts[OUTSIDE])
    update_run_file(run_dir, **facts, **{PROMPT_DATE: today.isoformat()})
    group = cfg.logger.wandb.group or f"{cfg.benchmark.name}-{cfg.algo.name}-{config_hash(cfg)[:6]}"
    tags = [cfg.benchmark.name, cfg.algo.name, cfg.model.name, *cfg.logger.wandb.tags]
    sinks = open_sinks(
        cfg.logger,
        run_dir,
        run_config=cfg.model_dump(),
        identity=RunIdentity.of_seed(group, cfg.seed, tags=tags),
        resume_from_update=state.update + 1 if resume_from else None,
        brought=cfg.logger.sinks,
    )
    title = f"{cfg.algo.name} on {cfg.benchmark.name} ({data['source']} data), seed {cfg.seed}"
    health = HealthWatch(
        cfg.trainer.health,
        run_dir,
        max_grad_norm=cfg.trainer.max_grad_norm,
        history=read_rows(run_dir / "metrics.jsonl") if resume_from else {},
        done=state.update,
    )
    exit_code = 1
    with ExitStack() as stack:
        stop = stack.enter_context(Stopper())
        dashboard = stack.enter_context(Dashboard(cfg.logger.console, title, cfg.trainer.updates, done=state.update))
        if resume_from:
            dashboard.message(f"resumed from {resume_from}, update {state.update}")
        try:
            yield Run(
                cfg,
                run_dir,
                title=title,
                data=data,
                task_kinds=sorted({task.kind for task in benchmark.tasks("train")}),
                sinks=sinks,
                dashboard=dashboard,
                stop=stop,
                health=health,
                resume_from=resume_from,
                prompt_date=today,
            )
            exit_code = 0
        except HealthStop as stopped:
            exit_code = stopped.exit_code
            raise
        finally:
            sinks.close(128 + stop.signum if stop.signum else exit_code)


class RunFolderError(UserError):
    """The run folder cannot take this run."""


def clear_folder(run_dir: Path, resume: str | None, done: int) -> None:
    """A new run needs a folder without a run; a resumed one drops the evaluations after its checkpoint."""
    if resume is None and (run_dir / "metrics.jsonl").exists():
        raise RunFolderError(
            f"{run_dir} already holds a run: go on with `{resume_command(from_here(run_dir))}`, or give another run_dir"
        )
    remove_leftovers(run_dir)
    for path in (run_dir / EVALUATIONS).glob("update-*.json"):
        if done == 0 or int(path.stem.removeprefix("update-")) > done:
            path.unlink()
    drop_trajectories(run_dir, done)


def checkpoint_to_resume(resume: str | None, run_dir: Path) -> Path | None:
    """What `resume` means: null = nothing, auto = the newest good checkpoint of this folder if any, a path = that."""
    if resume is None:
        return None
    return newest_good_checkpoint(run_dir) if resume == "auto" else find_checkpoint(Path(resume))


def read_evaluations(run_dir: Path) -> list[tuple[int, ShownEvaluation]]:
    """(update, totals) of every evaluation in a run folder, in order."""
    contents = [json.loads(path.read_text()) for path in sorted((run_dir / EVALUATIONS).glob("update-*.json"))]
    return [(content["update"], shown(content["total"])) for content in contents]


def read_groups(run_dir: Path) -> list[tuple[str, str]]:
    """What the first and the last evaluation found on each group of task types (Deep Search: ID and OOD)."""
    paths = sorted((run_dir / EVALUATIONS).glob("update-*.json"))
    ends = [("first", paths[0]), ("last", paths[-1])] if paths else []
    return [
        (f"{when} {name}", text)
        for when, path in ends
        for name, text in group_lines(json.loads(path.read_text()).get("averages", []))
    ]


def group_lines(averages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(name, `61.2% [57.9%, 64.4%] n=750 (mean of 3 sources)`) of each group; what averages all has its own line."""
    return [
        (
            row["name"],
            f"{row['success_rate']:.1%} [{row['lo']:.1%}, {row['hi']:.1%}] n={row['n']} "
            f"(mean of {row['sources']} source{'s' if row['sources'] > 1 else ''})",
        )
        for row in averages
        if row["group"] != "all"
    ]


def shown(total: Mapping[str, Any]) -> ShownEvaluation:
    return {"success_rate": total["success_rate"], "lo": total["lo"], "hi": total["hi"], "n": total["n"]}


def peak_memory_gb() -> float:
    """Largest memory this process has held: of the GPU if there is one, else of the process, in GB (1e9 bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
