"""The jobs of a sweep end with the command that started them, however that ends, each with a checkpoint.

The command has a folder of its own below the temporary folder, and owns it for as long as it lives (`owner.py`). A job
in another process of this machine leaves its name there and looks again and again: has the command asked to stop, or
is it gone? Jobs on other machines see no such folder: those of a cluster outlive the command that has queued them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from empg_cli.cli.interrupts import interruptible
from empg_cli.errors import JobFailed
from empg_cli.observe.stop import Stopped
from empg_cli.owner import FolderOwned, owning
from empg_cli.signals import ASKING

MAIN_PID = "EMPG_MAIN_PID"
SWEEP = "EMPG_SWEEP"
"""In the environment of the command and of its jobs: `HOST:FOLDER`."""
STOP, JOB = "stop", "job-"
LOOK_EVERY_S = 0.5
ASK_AGAIN_S = 10
"""A signal may be swallowed by code that catches every error."""
LAUNCHERS = ("joblib", "submitit")
"""Packages whose own errors say that a worker is gone, or bring the error of a job home as a text."""


@contextlib.contextmanager
def leading(again: str) -> Iterator[None]:
    """Around a sweep. A signal asks the jobs of other processes to stop; while none of them works, it ends the sweep.

    Args:
        again: the command that goes on with all jobs.

    Raises:
        Stopped: a signal has stopped this process or a job; its hint is `again`.
        JobFailed: of a job, with `again`; also where a launcher lost a worker, or brought an error home as a text.
    """
    with tempfile.TemporaryDirectory(prefix="empg-sweep-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        asked: list[int] = []

        def ask(signum: int, frame: FrameType | None) -> None:
            if asked and signum == signal.SIGINT:
                raise KeyboardInterrupt
            asked.append(signum)
            (folder / STOP).touch()
            if not any(folder.glob(f"{JOB}*")):
                raise SystemExit(128 + signum)  # an ordinary exception is one of a job, and the next one would begin
            os.write(2, b"stopping: the jobs save and end; Ctrl-C again stops at once\n")

        place = f"{socket.gethostname()}:{name}"
        with owning(folder, "sweeping"), _in_environment(place), _handled_by(ask):
            try:
                yield
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                if signum := asked[0] if asked else _signal_in(error):
                    raise Stopped(signum, again) from error
                if isinstance(error, JobFailed) or type(error).__module__.split(".")[0] in LAUNCHERS:
                    raise JobFailed(f"{_in_a_line(error)}\n  the other jobs go on with:  {again}") from error
                raise


@contextlib.contextmanager
def following() -> Iterator[None]:
    """Around a job of a sweep, wherever a launcher runs it; around any other it does nothing.

    Raises:
        Stopped: the sweep was asked to stop before the job began, or a signal came that nothing inside has answered.
    """
    folder = _folder_of_the_sweep()
    if folder is None:
        yield
        return
    if not _is_led(folder):
        _end_alone(folder)
    if (folder / STOP).exists():
        raise Stopped(signal.SIGTERM, "the sweep")
    with interruptible("the sweep"), contextlib.nullcontext() if in_main_process() else _watched(folder):
        yield


def in_main_process() -> bool:
    """False in the worker of a launcher such as joblib or submitit."""
    return os.environ.get(MAIN_PID) == str(os.getpid())


def _folder_of_the_sweep() -> Path | None:
    """None outside of a sweep, and for a job that is to outlive the command."""
    host, _, name = os.environ.get(SWEEP, "").partition(":")
    if host != socket.gethostname() or os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        return None
    return Path(name)


def _is_led(folder: Path) -> bool:
    """The command lives: its lock ends with it, also while a killed process waits to be reaped."""
    if in_main_process():
        return True
    try:
        with owning(folder, "looking"):
            return False
    except FolderOwned:
        return True
    except FileNotFoundError:  # the folder is gone
        return False
    except OSError:  # nobody can tell, for want of descriptors, say
        return True


class _Watch(threading.Thread):
    """Beside the jobs of a worker, one after the other, and while it waits for the next."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.lock = threading.Lock()
        """Held while a signal is sent: outside of a job it would kill the worker, and the launcher then the others."""
        self.is_at_work = False

    def run(self) -> None:
        asked_at = -math.inf
        while True:
            time.sleep(LOOK_EVERY_S)
            is_led = _is_led(self.folder)
            must_end = not is_led or (self.folder / STOP).exists()
            with self.lock:
                if not self.is_at_work and not is_led:
                    _end_alone(self.folder)
                if self.is_at_work and must_end and time.monotonic() - asked_at >= ASK_AGAIN_S:
                    os.kill(os.getpid(), signal.SIGTERM)  # which the job obeys as if the user had sent it
                    asked_at = time.monotonic()


_watch: _Watch | None = None


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Around one job of a worker."""
    global _watch
    if _watch is None:
        _watch = _Watch(folder)
        _watch.start()
    mark = folder / f"{JOB}{os.getpid()}"
    with contextlib.suppress(OSError):  # the command has gone this very moment
        mark.touch()
    _watch.is_at_work = True
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)
        with _watch.lock:
            _watch.is_at_work = False
        if not _is_led(folder):
            _end_alone(folder)


def _end_alone(folder: Path) -> None:
    """A worker whose parent is gone has nobody to answer, and would begin the next job that waits in its pipe."""
    shutil.rmtree(folder, ignore_errors=True)
    logging.shutdown()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)


def _signal_in(error: BaseException) -> int | None:
    """The signal that a job has obeyed."""
    match error:
        case Stopped():
            return error.signum
        case KeyboardInterrupt():
            return signal.SIGINT
        case SystemExit(code=int(code)) if code > 128:
            return code - 128
    return None


def _in_a_line(error: BaseException) -> str:
    """Ours as it is; of a launcher's the last line of what it quotes."""
    if isinstance(error, JobFailed):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -\t")]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"


@contextlib.contextmanager
def _in_environment(place: str) -> Iterator[None]:
    os.environ[SWEEP] = place
    try:
        yield
    finally:
        os.environ.pop(SWEEP, None)


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """In the main thread of this process, not in its forks. What `nohup` has set to be ignored stays so."""
    mine = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == mine:
            handler(signum, frame)

    before = {}
    for signum in ASKING:
        if signal.getsignal(signum) != signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
                before[signum] = signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier if earlier is not None else signal.SIG_DFL)
