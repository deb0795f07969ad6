"""A run while it lives: its folder, sinks, dashboard, clocks and stop signals."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from empg_cli import config
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.evaluation.evaluate import Evaluation
from empg_cli.policy.loading import model_fingerprint
from empg_cli.policy.policy import Policy
from empg_cli.rollout.collect import Progress
from empg_cli.tracking.dashboard import Dashboard
from empg_cli.tracking.files import read_run_file, update_run_file, write_atomically
from empg_cli.tracking.sinks import Fan, RunIdentity, open_sinks
from empg_cli.training.checkpoint import TrainState, load_state, newest_good_checkpoint, remove_leftovers
from empg_cli.training.record import config_hash, run_facts
from empg_cli.training.stop import Stopped, Stopper

log = logging.getLogger(__name__)


class Run:
    def __init__(
        self, cfg: TrainConfig, run_dir: Path, sinks: Fan, dashboard: Dashboard, stop: Stopper, resume_from: Path | None
    ) -> None:
        self.cfg, self.run_dir, self.stop, self.resume_from = cfg, run_dir, stop, resume_from
        self._sinks, self._dashboard = sinks, dashboard
        self._seconds: dict[str, float] = defaultdict(float)
        self._last_log = time.perf_counter()
        self._evaluations: dict[str, dict[str, Any]] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to `timing_s/<name>` of the next logged row."""
        start = time.perf_counter()
        yield
        self._seconds[f"timing_s/{name}"] += time.perf_counter() - start

    def progress(self, phase: str) -> Progress:
        return lambda done, total: self._dashboard.phase(phase, done, total)

    def record_policy(self, policy: Policy) -> None:
        """Note the initial weights in run.json; a resumed run must start from the same ones."""
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
            **(evaluation.metrics() if evaluation else {}),
            **self._seconds,
            "perf/time_per_step": seconds,
            "perf/mem_gb": peak_memory_gb(),
        }
        self._seconds.clear()
        self._sinks.log(state.update, row)
        if state.update:
            self._dashboard.update(state.update, row)
        if evaluation:
            self._record_evaluation(state, evaluation)

    def _record_evaluation(self, state: TrainState, evaluation: Evaluation) -> None:
        if state.best_success is None or evaluation.success_rate > state.best_success:
            state.best_success, state.best_update = evaluation.success_rate, state.update
        content = {"update": state.update, **evaluation.as_dict(), "tasks": evaluation.tasks()}
        folder = self.run_dir / "evaluations"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"update-{state.update:06d}.json", json.dumps(content, indent=1) + "\n")
        total = evaluation.total
        self._dashboard.evaluation(
            state.update, {"success_rate": total.success_rate, "lo": total.lo, "hi": total.hi, "n": total.n}
        )

    def raise_if_stopped(self) -> None:
        """Leave the loop when a signal asked for it. Call after a checkpoint."""
        if self.stop.requested:
            self.stop.hand_over()
            raise Stopped(self.stop.signum, f"empg train --resume {self.run_dir}")

    def finish(self, state: TrainState, evaluation: Evaluation | None) -> None:
        summary: dict[str, Any] = {
            "updates": state.update,
            "config_hash": config_hash(self.cfg),
            "env/episodes": state.episodes,
            "best/success_rate": state.best_success,
            "best/update": state.best_update,
        }
        if evaluation:
            summary |= evaluation.metrics()
        self._sinks.summary(summary)

    @property
    def pointers(self) -> dict[str, str]:
        return self._sinks.pointers


@contextmanager
def start_run(cfg: TrainConfig, run_dir: Path, benchmark: Benchmark) -> Iterator[Run]:
    """Open the run folder, write what the run is, and keep sinks, dashboard and signal handlers open."""
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    run_dir.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run_dir)
    resume_from = find_checkpoint(cfg.resume, run_dir)
    state = load_state(resume_from) if resume_from else TrainState()
    config.write(cfg, run_dir / "config.yaml")
    data = benchmark.fingerprint()
    update_run_file(run_dir, **run_facts(cfg, data))
    group = cfg.logger.wandb.group or f"{cfg.benchmark.name}-{cfg.algo.name}-{config_hash(cfg)[:6]}"
    tags = [cfg.benchmark.name, cfg.algo.name, cfg.model.name, *cfg.logger.wandb.tags]
    sinks = open_sinks(
        cfg.logger,
        run_dir,
        run_config=cfg.model_dump(),
        identity=RunIdentity.of_seed(group, cfg.seed, tags=tags),
        resume_from_update=state.update + 1 if resume_from else None,
    )
    title = f"{cfg.algo.name} on {cfg.benchmark.name} ({data['source']} data), seed {cfg.seed}"
    exit_code = 1
    with ExitStack() as stack:
        stop = stack.enter_context(Stopper())
        dashboard = stack.enter_context(
            Dashboard(cfg.logger.console, title, cfg.trainer.updates, done=state.update)
        )
        if resume_from:
            dashboard.message(f"resumed from {resume_from}, update {state.update}")
        try:
            yield Run(cfg, run_dir, sinks, dashboard, stop, resume_from)
            exit_code = 0
        finally:
            sinks.close(128 + stop.signum if stop.signum else exit_code)


def find_checkpoint(resume: str | None, run_dir: Path) -> Path | None:
    """What `resume` means: null = nothing, auto = the newest good checkpoint of this folder, a path = that one."""
    if resume is None:
        return None
    if resume == "auto":
        return newest_good_checkpoint(run_dir)
    path = Path(resume)
    found = path if (path / "state.json").is_file() else newest_good_checkpoint(path)
    if found is None:
        raise FileNotFoundError(f"resume={resume}: no usable checkpoint there")
    return found


def peak_memory_gb() -> float:
    """Largest memory this process has held: of the GPU if there is one, else of the process, in GB (1e9 bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
