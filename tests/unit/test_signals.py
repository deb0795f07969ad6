"""When a signal is obeyed: at once, at a safe point, or by the operating system's own means."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from empg_cli.signals import ASKING, Interrupted, asked, caught, end_at_once_from_now, hand_over, held, obey


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


def in_a_fork(work: Callable[[], None]) -> int:
    """The exit code of a forked process; 99 where the work came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("signum", ASKING)
def test_a_signal_is_raised_where_it_arrives(signum: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as raised, caught():
        send(signum)
    assert raised.value.signum == signum
    assert signal.getsignal(signum) is before
    assert not asked(), "the next one begins anew"


def test_other_peoples_code_takes_it_for_ctrl_c() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_held_signals_wait_for_a_safe_point() -> None:
    done = []

    def work() -> None:
        with held():
            obey()
            send(signal.SIGTERM)
            done.append(asked())
            obey()
            done.append("more")

    with pytest.raises(Interrupted), caught():
        work()
    assert done == [signal.SIGTERM]


def test_held_signals_wait_for_the_end_of_the_outermost_block() -> None:
    done = []

    def work() -> None:
        with held():
            with held():
                send(signal.SIGTERM)
            done.append("inner")
        done.append("outer")

    with pytest.raises(Interrupted), caught():
        work()
    assert done == ["inner"]


def test_who_cleans_up_after_a_signal_is_not_interrupted_again() -> None:
    with caught():
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)
        with held():
            send(signal.SIGTERM)
        send(signal.SIGHUP)
        assert asked() == signal.SIGTERM, "the first one counts"


def test_a_second_ctrl_c_ends_the_process_on_the_spot() -> None:
    def work() -> None:
        with caught(), held():
            send(signal.SIGTERM)
            send(signal.SIGTERM)  # schedulers repeat themselves
            send(signal.SIGINT)

    assert in_a_fork(work) == 130


def test_nohup_stays() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught():
            send(signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_child_ignores_them() -> None:
    with caught():
        assert in_a_fork(lambda: send(signal.SIGTERM)) == 99


def test_a_signal_that_a_finaliser_swallows_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Finalised:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    def work() -> None:
        Finalised()
        for _ in range(200):
            time.sleep(0.01)

    hook = sys.unraisablehook
    with pytest.raises(Interrupted), caught():
        work()
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("signum", "is_told"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_whoever_caught_a_preemption_before_us_does_its_part(signum: int, is_told: bool) -> None:
    told = []
    before = signal.signal(signum, lambda got, _: told.append(got))
    try:
        with caught(), caught():
            with pytest.raises(Interrupted):
                send(signum)
            hand_over()
    finally:
        signal.signal(signum, before)
    assert told == ([signum] if is_told else [])


def test_at_the_end_of_a_process_the_code_is_right_without_more_work() -> None:
    def work() -> None:
        end_at_once_from_now()
        send(signal.SIGHUP)

    assert in_a_fork(work) == 129
