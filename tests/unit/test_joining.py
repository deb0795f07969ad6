"""Processes find each other at a socket that their parent has made, and notice when one is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from threading import Timer

import pytest
from torch.distributed import TCPStore

from empg_cli.joining import HOST, PORT, is_lost, joined
from empg_cli.ranks import ALONE, RankLost
from empg_cli.signals import Interrupted, caught

RANK = """
import os, signal, sys
from empg_cli.joining import is_lost, joined
from empg_cli.pulse import is_waiting
from empg_cli.ranks import RankLost
rank, port, fd = map(int, sys.argv[1:])
with joined(rank, 2, device="cpu", timeout_s=60, port=port, listen_fd=fd if rank == 0 else None) as ranks:
    print(ranks.of_all(10 + rank), ranks.of_first(rank), ranks.is_first, flush=True)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        ranks.meet()
    except RankLost as lost:
        print("lost:", is_lost(lost), is_waiting(), str(lost).startswith("another rank is gone"), flush=True)
        os._exit(0)
"""


def test_they_meet_and_notice_that_one_is_gone() -> None:
    with socket.create_server((HOST, 0)) as listening:
        port, fd = listening.getsockname()[1], listening.fileno()
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(rank), str(port), str(fd)],
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[] if rank else [fd],
            )
            for rank in range(2)
        ]
    first, second = (rank.communicate(timeout=120)[0] for rank in ranks)
    assert first == "[10, 11] 0 True\nlost: True False True\n"
    assert second == "[10, 11] 0 False\n"


UNATTENDED = """
import sys, time
from empg_cli.joining import joined
from empg_cli.signals import Interrupted
rank, port = map(int, sys.argv[1:])
place = {"device": "cpu", "timeout_s": 60, "port": port, "address": "127.0.0.1", "agent_answers": True}
left = 0.0
try:
    with joined(rank, 2, unattended=True, **place) as ranks:
        print(ranks.of_all(10 + rank), flush=True)
        if rank == 0:
            time.sleep(1)
            left = time.time()
        raise Interrupted(10)
except Interrupted:
    print(left or time.time(), flush=True)
"""


def test_below_an_agent_they_meet_in_spite_of_an_earlier_attempt_and_the_first_leaves_first() -> None:
    agent = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    with socket.create_server((HOST, 0)) as free:
        agent.set(PORT, str(free.getsockname()[1]))
    command = [sys.executable, "-c", UNATTENDED]
    ranks = [
        subprocess.Popen([*command, str(rank), str(agent.port)], stdout=subprocess.PIPE, text=True) for rank in (1, 0)
    ]
    (second, second_left), (first, first_left) = (rank.communicate(timeout=120)[0].splitlines() for rank in ranks)
    assert first == second == "[10, 11]"
    assert float(second_left) >= float(first_left)


def test_a_signal_ends_the_wait_for_the_first() -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    joining = joined(1, 2, device="cpu", timeout_s=60, port=port, unattended=True)
    with caught():
        Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Interrupted):
            joining.__enter__()


def test_one_process_meets_nobody() -> None:
    with joined(0, 1, device="cpu", timeout_s=1, port=0) as ranks:
        assert ranks is ALONE


def test_nobody_waits_for_ever() -> None:
    with (
        socket.create_server((HOST, 0)) as listening,
        pytest.raises(RankLost, match="have not found each other"),
        joined(0, 2, device="cpu", timeout_s=1, port=listening.getsockname()[1], listen_fd=listening.detach()),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RankLost("gone"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (KeyError("gloo"), False),
    ],
)
def test_what_the_loss_of_a_rank_looks_like(error: Exception, is_one: bool) -> None:
    assert is_lost(error) == is_one
