"""One rank of a run: a process of its own, which the command starts, tells its job, and asks to end.

Only the first rank writes to the terminal and to `train.log`. When the command dies, however it does, its ranks end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import logging.config
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from empg_cli.cli.ranks.ends import end_of, plain_lines
from empg_cli.cli.ranks.job import RankEnd, RankJob, SignOfLife, end_file, life_file, log_of, tell
from empg_cli.pulse import beat, is_waiting, phase, silence_s
from empg_cli.signals import SHOW_CURSOR, Interrupted, caught, exit_code, held

if TYPE_CHECKING:
    from empg_cli.config.schema import TrainConfig

log = logging.getLogger("empg_cli.cli.ranks.main")

STDIN = 0
SIGN_EVERY_S = 1.0
LONGEST_WAIT_S = 7 * 24 * 3600
"""For other ranks. The command knows more than one that waits: whether they are silent, or in a warm start of hours."""
LEFT_ALONE = 1
"""Exit code of a rank whose command is gone."""


def main() -> None:
    with caught():  # before anything slow: from its first sign of life on, signals are sent here
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        job = RankJob.from_line(_line())
        threading.Thread(target=_end_with_the_command, daemon=True).start()
        beat()
        threading.Thread(target=_show_life, args=(life_file(Path(job.folder), rank),), daemon=True).start()
        end = _carried_out(job, rank, size)
    raise SystemExit(0 if end.kind == "done" else 1)


def _carried_out(job: RankJob, rank: int, size: int) -> RankEnd:
    end: RankEnd | None = None
    path = end_file(Path(job.folder), rank)
    try:
        config = _prepared(job, rank)

        from empg_cli.joining import joined
        from empg_cli.loop import train  # brings torch and transformers: seconds
        from empg_cli.model.loading import device_type
        from empg_cli.owner import owned_by_parent

        with (
            owned_by_parent(Path(job.run_dir)),
            joined(
                rank,
                size,
                device=device_type(config.trainer.device),
                timeout_s=LONGEST_WAIT_S,
                port=job.port,
                listen_fd=job.listen_fd if rank == 0 else None,
            ) as ranks,
        ):
            try:
                summary = train(config, Path(job.run_dir), ranks)
                end = RankEnd("done", success_rate=summary.success_rate)
            except BaseException as error:
                end = _end_of(error, job, rank)
            with held():
                tell(path, end)  # before the others see this rank leave
    except BaseException as error:
        if end is None:
            end = _end_of(error, job, rank)
            tell(path, end)
    return end


def _prepared(job: RankJob, rank: int) -> TrainConfig:
    """What Hydra and the command have done in the parent."""
    sys.argv[:] = job.command_line
    sys.path[:] = job.path
    stacks = log_of(Path(job.run_dir), rank).open("ab")
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGQUIT, stacks, all_threads=True)
    if rank == 0:
        from empg_cli.observe.terminal import Forgiving

        sys.stderr = Forgiving(sys.stderr)
        logging.config.dictConfig(job.logging)
    else:
        plain_lines()

    from omegaconf import OmegaConf

    from empg_cli.config.compose import validate
    from empg_cli.config.schema import TrainConfig

    return validate(OmegaConf.create(job.config), TrainConfig)


def _end_of(error: BaseException, job: RankJob, rank: int) -> RankEnd:
    end = end_of(error, job.config, Path(job.run_dir), rank)
    if end.kind == "lost" and rank:  # the first leaves it to the command, which knows more
        log.error("%s", end.text)
    if end.kind != "failed":
        return end
    log.exception("train failed", exc_info=error)
    where = Path(job.run_dir) / "train.log" if rank == 0 else log_of(Path(job.run_dir), rank)
    return RankEnd("failed", f"{end.text}\n  traceback: {where}")


def _line() -> bytes:
    """The first of standard input, read without a buffer: a thread that sleeps in one stops Python from ending."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(STDIN, 1)):
            os._exit(LEFT_ALONE)
        line += byte
    return line


def _end_with_the_command() -> NoReturn:
    while os.read(STDIN, 1):
        pass
    with contextlib.suppress(OSError):
        if os.isatty(2):  # the panel hides it
            os.write(2, SHOW_CURSOR)
    os._exit(LEFT_ALONE)


def _show_life(path: Path) -> NoReturn:
    count = 0
    while True:
        count += 1
        with contextlib.suppress(OSError):
            tell(path, SignOfLife(phase(), silence_s(), is_waiting(), count))
        time.sleep(SIGN_EVERY_S)


if __name__ == "__main__":
    try:
        main()
    except Interrupted as interrupted:  # before there was a job
        raise SystemExit(exit_code(interrupted.signum)) from None
