"""One run on processes that somebody else has started: what `empg train dist=cluster` does on each of them.

The first rank is the command as users know it: its folder, its log, its last words. The others make no folder and no
log: they join, are told the job by the first, and say on stderr what there is to say.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from empg_cli.cli.ranks.cluster import Place, place_of
from empg_cli.cli.ranks.ends import end_of, plain_lines
from empg_cli.config.compose import INVALID
from empg_cli.config.dist import ClusterDist
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.invocation import from_here, resume_command
from empg_cli.observe.stop import AGAIN
from empg_cli.owner import owning
from empg_cli.ranks import Ended, Ranks
from empg_cli.runs.config_file import is_run
from empg_cli.signals import asked, caught, exit_code

log = logging.getLogger(__name__)

SEEN_WITHIN_S = 20.0
"""Network file systems show another machine's new file late."""
NOTHING = ""


class RankGone(UserError):  # noqa: N818 (a sentence for the user)
    """Another rank is gone, or has never come. The same command may work, so exit code 1."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """What the first rank tells the others."""

    config: dict[str, Any]
    """As plain data."""
    run_dir: Path
    sign: str
    """Name of a file in there: whoever does not see it looks at another disk."""


def lead(cfg: TrainConfig, run_dir: Path) -> float | None:
    """The first rank's part: the success rate of the last evaluation.

    Raises:
        RankGone: another rank is gone, or has never come.
        UserError: a rank does not see the folder.
    """
    from empg_cli.joining import is_lost
    from empg_cli.loop import train  # brings torch and transformers: seconds

    place = checked_place(cfg)
    if place.rank:
        what = "cannot be read from --config-path or --experimental-rerun: ranks but the first would not know of it"
        raise ConfigError(INVALID, [Problem("dist", what, "cluster")])
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with owning(run_dir, "training", again=True), _joined(cfg, place) as ranks:
            _tell(cfg, run_dir, ranks)
            return train(cfg, run_dir, ranks).success_rate
    except Exception as error:
        if not is_lost(error) or asked():
            raise
        again = resume_command(from_here(run_dir)) if is_run(run_dir) else AGAIN
        raise RankGone(f"{error}\n  To go on from the last checkpoint:  {again}") from error


def _tell(cfg: TrainConfig, run_dir: Path, ranks: Ranks) -> None:
    """
    Raises:
        UserError: a rank does not see the folder.
    """
    with tempfile.NamedTemporaryFile(dir=run_dir, prefix=".seen-") as sign:
        ranks.of_first(ClusterJob(cfg.model_dump(mode="json"), run_dir, Path(sign.name).name))
        blind = [where for where in ranks.of_all(NOTHING) if where]
    if blind:
        raise UserError(
            f"{run_dir} is not there, or another folder, on {', '.join(blind)}: every machine must see the folder of a "
            "run, so give a run_dir on a file system that they share"
        )


def follow(cfg: TrainConfig) -> NoReturn:
    """The part of any other rank, to its end.

    Args:
        cfg: what its own command line says. How to join is read from it; the run is the first rank's.

    Raises:
        ConfigError: this process cannot be a rank.
        SystemExit: at the end, with an exit code like that of the first rank.
    """
    place = checked_place(cfg)
    plain_lines()
    with caught():
        code = _carried_out(cfg, place)
    raise SystemExit(code)


def checked_place(cfg: TrainConfig) -> Place:
    """
    Raises:
        ConfigError: nobody has started several processes, or shards cannot be equal.
    """
    place = place_of(os.environ)
    assert isinstance(cfg.dist, ClusterDist)
    if cfg.dist.shard and place.size % cfg.dist.shard:
        what = f"must divide the number of processes, {place.size}"
        raise ConfigError(INVALID, [Problem("dist.shard", what, str(cfg.dist.shard))])
    return place


def _carried_out(cfg: TrainConfig, place: Place) -> int:
    """The exit code."""
    run_dir = Path(cfg.run_dir)
    try:
        from omegaconf import OmegaConf

        from empg_cli.config.compose import validate
        from empg_cli.loop import train

        with _joined(cfg, place) as ranks:
            job: ClusterJob = ranks.of_first(None)  # type: ignore[assignment]
            where = NOTHING if _sees(job) else f"{socket.gethostname()} (rank {place.rank})"
            if any(ranks.of_all(where)):
                return UserError.exit_code  # the first says where
            cfg, run_dir = validate(OmegaConf.create(job.config), TrainConfig), job.run_dir
            train(cfg, run_dir, ranks)
    except BaseException as error:
        return _said(error, cfg, run_dir, place)
    return 0


def _joined(cfg: TrainConfig, place: Place) -> AbstractContextManager[Ranks]:
    from empg_cli.joining import joined
    from empg_cli.model.loading import device_type

    assert isinstance(cfg.dist, ClusterDist)
    return joined(
        place.rank,
        place.size,
        device=device_type(cfg.trainer.device),
        timeout_s=cfg.dist.timeout_s,
        port=place.port,
        address=place.address,
        local_rank=place.local_rank,
        agent_answers=place.agent_answers,
        unattended=True,
    )


def _sees(job: ClusterJob) -> bool:
    until = time.monotonic() + SEEN_WITHIN_S
    while not (job.run_dir / job.sign).exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _said(error: BaseException, cfg: TrainConfig, run_dir: Path, place: Place) -> int:
    """The exit code; a line of log unless it is the first rank's to speak."""
    from empg_cli.model.memory import OutOfMemory

    if isinstance(error, Ended):
        return error.exit_code
    end = end_of(error, cfg.model_dump(mode="json"), run_dir, place.rank)
    match end.kind:
        case "stopped":
            return exit_code(end.signum)
        case "refused":
            is_own = isinstance(error, OutOfMemory) or not isinstance(error, UserError)
            level = logging.ERROR if is_own else logging.INFO  # what all have met with the first says to the user
            log.log(level, "rank %d: %s", place.rank, end.text)
            return end.exit_code
        case "lost":
            log.error("rank %d: %s", place.rank, end.text)
        case _:
            log.exception("rank %d: train failed", place.rank, exc_info=error)
    return 1
