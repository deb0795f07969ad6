"""A sweep and the jobs of its workers: who is told to stop, who ends alone, who goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from empg_cli.cli import sweep
from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.sweep import MAIN_PID, SWEEP, following, leading
from empg_cli.errors import JobFailed, UserError
from empg_cli.observe.stop import Stopped


@pytest.fixture(autouse=True)
def main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAIN_PID, str(os.getpid()))
    monkeypatch.delenv(SWEEP, raising=False)


@pytest.fixture(autouse=True)
def an_interrupt_arrives() -> Iterator[None]:
    """Also where the tests run in the background of a script: a shell has it ignored there (POSIX)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


WORKER = """
    import sys, time
    from empg_cli.cli.sweep import following
    from empg_cli.observe.stop import Stopped
    print("here", flush=True)
    try:
        with following():
            print("at work", flush=True)
            time.sleep(30)
    except Stopped:
        print("stopped", flush=True)
    time.sleep(float(sys.argv[1]))
    print("asked for the next job", flush=True)
"""


def worker(*, idle_s: float = 0.0) -> subprocess.Popen[str]:
    """A process that has one job and waits for the next, as a launcher starts it."""
    script = textwrap.dedent(WORKER)
    return subprocess.Popen([sys.executable, "-c", script, str(idle_s)], stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_command_stops_the_jobs_of_its_workers_and_waits_for_them(signum: int) -> None:
    with pytest.raises(Stopped) as stopped, leading("empg again"):  # noqa: PT012
        child = worker()
        assert (line(child), line(child)) == ("here", "at work")
        os.kill(os.getpid(), signum)  # returns: the command waits for its launcher
        assert line(child) == "stopped"
        assert line(child) == "asked for the next job"  # a worker is not killed: its launcher would kill the others
        raise Stopped(signal.SIGTERM, "empg train --resume one")  # what the launcher brings home
    assert (stopped.value.signum, stopped.value.hint) == (signum, "empg again")


def test_without_a_job_at_work_a_signal_ends_the_command_at_once() -> None:
    with pytest.raises(Stopped, match="empg again") as stopped, leading("empg again"):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("went on")
    assert stopped.value.exit_code == 143


def test_a_second_interrupt_ends_the_command_while_jobs_work() -> None:
    with pytest.raises(Stopped) as stopped, leading("empg again"):  # noqa: PT012
        (Path(os.environ[SWEEP].partition(":")[2]) / "job-1").touch()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise KeyboardInterrupt
    assert (stopped.value.signum, stopped.value.hint) == (signal.SIGINT, "empg again")


def test_a_job_that_waits_while_the_sweep_stops_does_not_begin() -> None:
    with pytest.raises(Stopped), leading("empg again"):  # noqa: PT012
        (Path(os.environ[SWEEP].partition(":")[2]) / "stop").touch()
        with following():
            raise AssertionError("began")


@pytest.mark.parametrize("idle_s", [0.0, 30.0])
def test_a_worker_whose_command_was_killed_ends_alone(idle_s: float) -> None:
    """In its job, and while it waits for the next."""
    script = "import os, subprocess, sys, time\nfrom empg_cli.cli.sweep import leading\nwith leading('x'):\n"
    script += f"    child = subprocess.Popen([sys.executable, '-c', sys.argv[1], '{idle_s}'])\n    time.sleep(60)\n"
    job = textwrap.dedent(WORKER)
    if idle_s:
        job = job.replace("time.sleep(30)", "pass")
    command = subprocess.Popen([sys.executable, "-c", script, job], stdout=subprocess.PIPE, text=True)
    assert (line(command), line(command)) == ("here", "at work")
    time.sleep(0.2)
    began = time.monotonic()
    command.kill()
    assert command.stdout is not None
    assert "asked for the next job" not in command.stdout.read()  # the pipe closes when the worker is gone
    assert time.monotonic() - began < 10
    command.wait()


def test_jobs_elsewhere_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(MAIN_PID, "1")
    gone = tmp_path / "gone"
    began = []
    for place, executor in ((f"elsewhere:{gone}", ""), (f"{socket.gethostname()}:{gone}", "slurm")):
        monkeypatch.setenv(SWEEP, place)
        monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
        with following():
            began.append(place)
    assert len(began) == 2


def test_a_failing_job_says_how_the_others_go_on() -> None:
    with pytest.raises(JobFailed, match=r"(?s)broken.*the other jobs go on with:  empg again"), leading("empg again"):
        raise JobFailed("broken")
    with pytest.raises(UserError, match=r"^mistyped$"), leading("empg again"):
        raise UserError("mistyped")


def test_an_error_of_a_launcher_is_a_sentence() -> None:
    lost = type("TerminatedWorkerError", (RuntimeError,), {"__module__": "joblib.externals.loky.process_executor"})
    with pytest.raises(JobFailed, match="TerminatedWorkerError: it was killed"), leading("empg again"):
        raise lost("A worker is gone\n\n  it was killed\n-------\n")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.tempfile, "tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    with leading("empg again"):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert SWEEP not in os.environ
    assert signal.getsignal(signal.SIGTERM) is before


def test_work_without_safe_points_is_left_where_it_is() -> None:
    cleaned = []
    with pytest.raises(Stopped) as stopped, interruptible("empg data again"):  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)
        finally:
            cleaned.append(True)
    assert (stopped.value.exit_code, stopped.value.hint, cleaned) == (129, "empg data again", [True])


def test_what_a_signal_has_cut_short_is_no_failure_of_its_own() -> None:
    """A package that was imported by half, say: what it raises then is said by nobody."""
    with pytest.raises(Stopped) as stopped, interruptible("empg data again"):  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            raise RecursionError("half an import") from None
    assert stopped.value.exit_code == 143
    with pytest.raises(UserError, match="mistyped"), interruptible("empg data again"):  # noqa: PT012
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        raise UserError("mistyped")
    with pytest.raises(RecursionError), interruptible("empg data again"):
        raise RecursionError


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with leading("empg again"):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
