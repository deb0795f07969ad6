"""One run on several processes of this machine: what `empg train dist=node` does in the place of the training itself.

The command stays, and the first rank speaks for all of them: what it ends with, the command ends with. A rank that dies
or hangs takes the others along, and the run goes on from its last checkpoint as often as `dist.restarts` allows.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from empg_cli.cli.ranks.children import Pace
from empg_cli.cli.ranks.job import RankEnd, RankJob
from empg_cli.cli.ranks.watch import Loss, attended
from empg_cli.config.compose import INVALID
from empg_cli.config.dist import NodeDist
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import JobFailed, UserError
from empg_cli.invocation import from_here, resume_command
from empg_cli.observe.stop import AGAIN, Stopped
from empg_cli.owner import owning
from empg_cli.ranks import Ended
from empg_cli.runs.abandoned import EVERYTHING, leave_branch
from empg_cli.runs.checkpoint import all_checkpoints
from empg_cli.runs.config_file import find_run_folder, is_run
from empg_cli.runs.folder import RESTART
from empg_cli.runs.history import METRICS
from empg_cli.signals import SHOW_CURSOR, asked, hand_over, held

log = logging.getLogger(__name__)

GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Of drivers: of NVIDIA's, of Windows' for its Linux, of AMD's."""


class RankDied(UserError):  # noqa: N818 (a sentence for the user)
    """A rank has died or hung, and no restart is left. The same command may work, so exit code 1."""

    exit_code = 1


def processes_of(cfg: TrainConfig) -> int:
    """How many carry out the run, this machine considered.

    Raises:
        ConfigError: it cannot be so many.
    """
    return on_this_node(cfg.dist, cfg.trainer.device) if isinstance(cfg.dist, NodeDist) else 1


def on_this_node(dist: NodeDist, device: str) -> int:
    """The same, of `trainer.device` and what is said of processes."""
    number, gpus = dist.processes, 0 if device == "cpu" else gpus_here()
    if number is None and not gpus:
        what = "must be given where a run has no GPU" if device == "cpu" else "must be given: no GPU is here"
        raise ConfigError(INVALID, [Problem("dist.processes", what, "null", "for instance dist.processes=2")])
    if number is not None and gpus and number > gpus:
        what, hint = f"must not exceed the GPUs of this machine, {gpus}", "leave it null: one a GPU"
        raise ConfigError(INVALID, [Problem("dist.processes", what, str(number), hint)])
    number = number or gpus
    if dist.shard and number % dist.shard:
        what = f"must divide the number of processes, {number}"
        raise ConfigError(INVALID, [Problem("dist.shard", what, str(dist.shard))])
    return number


@cache
def gpus_here() -> int:
    """Those that torch sees. It is asked in a process of its own: it takes seconds, and memory that stays."""
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return 0
    asking = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    answer = subprocess.run(asking, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    return int(answer) if answer.strip().isdecimal() else 0


def train_on_ranks(
    cfg: TrainConfig,
    run_dir: Path,
    count: int,
    *,
    job_logging: Mapping[str, Any],
    command_line: Sequence[str],
    pace: Pace | None = None,
    command: Sequence[str] | None = None,
) -> float | None:
    """The success rate of the last evaluation.

    Args:
        count: of ranks.
        job_logging: Hydra's settings of the job's log, resolved.
        command_line: as the user wrote it.
        command: what a rank runs.

    Raises:
        Stopped, JobFailed, Ended: what the first rank has ended with.
        RankDied: one of them has died or hung, and no restart is left.
        FolderOwned: another process works in the folder.
    """
    assert isinstance(cfg.dist, NodeDist)
    run_dir.mkdir(parents=True, exist_ok=True)
    began_with, resume = _checkpoints(run_dir), cfg.resume
    with (
        owning(run_dir, "training", again=True),
        tempfile.TemporaryDirectory(prefix="empg-ranks-", ignore_cleanup_errors=True) as name,
        held(),
    ):
        for attempt in itertools.count(1):
            place = Path(name, str(attempt))
            place.mkdir()
            job = RankJob(
                config={**cfg.model_dump(mode="json"), "resume": resume},
                run_dir=str(run_dir),
                folder=str(place),
                port=0,
                listen_fd=-1,
                logging=dict(job_logging),
                command_line=list(command_line),
                path=list(sys.path),
            )
            timeout_s, environment = cfg.dist.timeout_s, _environment(cfg, count)
            found = attended(
                job, count, timeout_s=timeout_s, environment=environment, pace=pace or Pace(), command=command
            )
            if isinstance(found, RankEnd):
                return _result(found, run_dir)
            _show_cursor()
            if asked():
                log.warning("%s; what came after the last checkpoint is lost", found.what)
                raise Stopped(asked(), _again(run_dir))
            if attempt > cfg.dist.restarts:
                raise RankDied(_last_words(found, run_dir, cfg.dist.restarts))
            resume = resume_after(resume, run_dir, began_with)
            newest = all_checkpoints(run_dir)[-1:]
            start = f"from {from_here(newest[0])}" if newest else "from its beginning"
            log.warning("%s; going on %s (restart %d of %d)", found.what, start, attempt, cfg.dist.restarts)
    raise AssertionError


def resume_after(resume: str | None, run_dir: Path, began_with: set[tuple[str, int]]) -> str:
    """The `resume` of the next attempt: what was asked for holds until the run has a checkpoint that came of it.

    Args:
        began_with: the checkpoints that were there before the first attempt.
    """
    if resume is None or _checkpoints(run_dir) - began_with:
        return "auto"
    if resume not in ("auto", RESTART):
        is_own = find_run_folder(Path(resume)).resolve() == run_dir.resolve()
        if not is_own and (run_dir / METRICS).exists():
            leave_branch(run_dir, after=EVERYTHING)  # another run's checkpoint goes on in a folder without rows only
    return resume


def _checkpoints(run_dir: Path) -> set[tuple[str, int]]:
    """A checkpoint that was set aside and made again is another one."""
    return {(path.name, path.stat().st_ino) for path in all_checkpoints(run_dir)}


def _environment(cfg: TrainConfig, count: int) -> dict[str, str]:
    """Cores are shared out where the run is on them, and gloo stays on this machine."""
    found = dict(os.environ)
    if cfg.trainer.device == "cpu" or not any(Path(device).exists() for device in GPU_DEVICES):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    if any(name == "lo" for _, name in socket.if_nameindex()):
        found.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return found


def _result(end: RankEnd, run_dir: Path) -> float | None:
    match end.kind:
        case "done":
            if asked():  # too late to save more: all is done
                raise Stopped(asked(), resume_command(from_here(run_dir)))
            return end.success_rate
        case "stopped":
            hand_over()
            raise Stopped(end.signum, end.text)
        case "refused":
            raise Ended(end.text, end.exit_code)
        case _:
            raise JobFailed(end.text)


def _last_words(loss: Loss, run_dir: Path, restarts: int) -> str:
    tried = f", {restarts} restarts are used up" if restarts else ""
    has_spoken = loss.log.exists() and loss.log.stat().st_size > 0  # the first rank writes into train.log
    where = from_here(loss.log if has_spoken else run_dir / "train.log")
    return f"{loss.what}{tried}\n  its log: {where}\n  To go on from the last checkpoint:  {_again(run_dir)}"


def _again(run_dir: Path) -> str:
    return resume_command(from_here(run_dir)) if is_run(run_dir) else AGAIN


def _show_cursor() -> None:
    """The panel of a rank that was killed has left it hidden."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
