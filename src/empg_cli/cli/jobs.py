"""One job, in the process that a launcher runs it in: a validated config, a folder, and a border around the work."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel

from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.path_errors import path_border
from empg_cli.cli.sweep import following, in_main_process
from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import JobFailed, UserError
from empg_cli.observe.stop import AGAIN, Stopped

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=BaseModel)
REQUEUED = "SLURM_RESTART_COUNT"
"""Set by Slurm in a job that it has queued again."""
COMMAND_LINE = list(sys.argv)
"""As the user wrote it; wandb records sys.argv."""


def train_task(cfg: DictConfig) -> float | None:
    """One job: the success rate of its last evaluation, which sweepers maximise or list.

    A job of a sweep that goes on is not run again where it has finished.
    """
    config, run_dir = prepare(cfg, TrainConfig)
    if _is_sweep() and config.resume == "auto":
        with job_border(run_dir, "train"):
            from empg_cli.runs.done import summary_if_done

            if (summary := summary_if_done(config, run_dir)) is not None:
                log.info("done already: %s", run_dir)
                return summary.get("last/success_rate")
    return _train(config, run_dir)


def run_training(cfg: DictConfig) -> float | None:
    """The same for whoever knows that the job is not done (a study)."""
    return _train(*prepare(cfg, TrainConfig))


def _train(config: TrainConfig, run_dir: Path) -> float | None:
    with job_border(run_dir, "train"):
        names = config.algo.name, config.model.name, config.benchmark.name
        log.info("%s with %s on %s, seed %d -> %s", *names, config.seed, run_dir)
        if config.dist.launch == "node":
            from empg_cli.cli.ranks.processes import processes_of, train_on_ranks

            if (count := processes_of(config)) > 1:
                return train_on_ranks(config, run_dir, count, job_logging=_job_logging(), command_line=COMMAND_LINE)
        if config.dist.launch == "cluster":
            if _is_sweep():
                raise refused_sweep()
            from empg_cli.cli.ranks.cluster_ranks import lead

            return lead(config, run_dir)
        from empg_cli.loop import train  # brings torch and transformers: seconds

        return train(config, run_dir).success_rate


def refused_sweep() -> ConfigError:
    hint = "start each run by itself, or give its jobs dist=node"
    return ConfigError(INVALID, [Problem("dist", "cannot be cluster in a sweep or a study", "cluster", hint)])


def _job_logging() -> dict[str, Any]:
    """Of this job, for whoever carries it out in another process."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    return dict(found)


def prepare(cfg: DictConfig, schema: type[Config]) -> tuple[Config, Path]:
    """At the start of a job: its validated config and its folder. A worker may see other files than `launch` did."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    from empg_cli.config.compose import validate

    if in_main_process():
        sys.argv = list(COMMAND_LINE)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    with open_dict(cfg):  # in a sweep the job's folder is Hydra's, not the composed one
        OmegaConf.update(cfg, "run_dir", str(run_dir))
        if "resume" in cfg:
            OmegaConf.update(cfg, "resume", resume_of(cfg))
    return validate(cfg, schema), run_dir


def resume_of(cfg: DictConfig) -> str | None:
    """What `resume` means in this process: a job that Slurm has queued again goes on, unless it is told otherwise."""
    told: str | None = cfg.get("resume")
    is_queued_again = os.environ.get(REQUEUED, "").strip("0").isdecimal()
    return "auto" if told is None and is_queued_again else told


@contextlib.contextmanager
def job_border(run_dir: Path, name: str) -> Iterator[None]:
    """Around a job: log its traceback where it happened, and turn a stop into an exit code."""
    try:
        with path_border(), following(), interruptible(AGAIN):
            yield
    except Stopped as stop:
        if not in_main_process():
            raise  # comes home as an exception; SystemExit would kill a launcher's worker
        leave(stop)  # not as an exception: Hydra would go on to the next job of the sweep
    except UserError as error:
        if _is_sweep():  # of a sweep, Hydra brings only the first error home
            log.error("%s", error)
        raise
    except JobFailed:  # of a rank, which has logged it
        raise
    except Exception as error:
        log.exception("%s failed", name)
        raise JobFailed(f"{type(error).__name__}: {error}\n  traceback: {run_dir / f'{name}.log'}") from error


def leave(stop: Stopped) -> NoReturn:
    if not _is_sweep():  # of which the command says how to go on with all jobs
        print(f"To go on:  {stop.hint}", file=sys.stderr)
    raise SystemExit(stop.exit_code)


def _is_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN
