"""How the processes of a run find each other, and part."""

from __future__ import annotations

import contextlib
import datetime
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from empg_cli.errors import UserError
from empg_cli.pulse import waiting
from empg_cli.ranks import ALONE, RankLost, Ranks

HOST = "127.0.0.1"
SAID_WHEN_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "process group")
"""Of RuntimeErrors of collectives that others call, such as those of FSDP."""
LEFT = "empg/first-has-left"
PORT = "empg/port-of-the-first"
LAST_WAIT_S = 60.0


class NoGpu(UserError):  # noqa: N818 (a sentence for the user)
    """More ranks than GPUs on a machine."""


@contextmanager
def joined(
    rank: int,
    size: int,
    *,
    device: str,
    timeout_s: float,
    port: int,
    address: str = HOST,
    local_rank: int | None = None,
    listen_fd: int | None = None,
    agent_answers: bool = False,
    unattended: bool = False,
) -> Iterator[Ranks]:
    """While the block runs, this process is one of the ranks.

    Args:
        device: cpu, or cuda: then each rank has a GPU of its own.
        timeout_s: how long it waits for another, now and at every common point.
        port: where the first rank answers.
        address: of its machine.
        local_rank: number among the ranks of this machine, and of its GPU there; None = all are on this one.
        listen_fd: the first rank's: a socket that listens there already, so that nobody else can have taken the port.
        agent_answers: torchrun itself answers there, attempt after attempt, so its store has keys of earlier ones: the
            first rank answers at a port of its own, which the others read there.
        unattended: no command of ours watches over the ranks: they see to it themselves that a signal ends a wait for
            the first one's answer, and that it is the first to leave.

    Raises:
        RankLost: not all came in time.
        NoGpu: there is none for this rank.
    """
    if size == 1:
        yield ALONE
        return
    import torch.distributed as dist

    if device == "cuda":
        _take_gpu(rank if local_rank is None else local_rank)
    until = time.monotonic() + timeout_s
    try:
        with waiting():
            timeout = datetime.timedelta(seconds=timeout_s)
            if rank and unattended:
                agent = _agent(address, port, until) if agent_answers else None
                port = _answering(address, lambda: port if agent is None else _told(agent), until)
            store = dist.TCPStore(  # type: ignore[attr-defined]
                address,
                0 if agent_answers and not rank else port,
                size,
                is_master=rank == 0,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=listen_fd,
            )
            if agent_answers and not rank:
                _agent(address, port, until).set(PORT, str(store.port))
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RankLost(f"the ranks have not found each other: {reason}") from error
    try:
        try:
            yield Ranks(rank, size)
        except BaseException as error:  # which the first rank has met with, too, unless it is gone
            if unattended and rank and not is_lost(error):
                _outlast_first(store)
            raise
        if unattended and rank:
            _outlast_first(store)
    finally:
        if unattended and rank == 0:
            with contextlib.suppress(RuntimeError):
                store.set(LEFT, "yes")
        dist.destroy_process_group()


def _take_gpu(number: int) -> None:
    """Of those that this process sees. Slurm may show each task one alone, which has number 0."""
    import torch

    gpus = torch.cuda.device_count()
    if number >= gpus > 1:
        raise NoGpu(
            f"this is process {number + 1} of {socket.gethostname()}, which has {gpus} GPUs: start one process a GPU "
            "(srun --ntasks-per-node, torchrun --nproc-per-node)"
        )
    torch.cuda.set_device(number if gpus > 1 else 0)


def _agent(address: str, port: int, until: float) -> Any:
    """The store of torchrun."""
    import torch.distributed as dist

    timeout = datetime.timedelta(seconds=max(1.0, until - time.monotonic()))
    return dist.TCPStore(address, port, is_master=False, timeout=timeout)  # type: ignore[attr-defined]


def _told(agent: Any) -> int | None:
    """Where the first rank answers, or that of an earlier attempt did; None where none has said it yet."""
    return int(agent.get(PORT)) if agent.check([PORT]) else None


def _answering(address: str, port_of: Callable[[], int | None], until: float) -> int:
    """The port, once the first rank answers there: unlike torch's own wait, one that a signal ends.

    Raises:
        RuntimeError: it has not.
    """
    while True:
        port, reason = port_of(), "it has named no port"
        if port is not None:
            try:
                socket.create_connection((address, port), timeout=max(0.1, min(5.0, until - time.monotonic()))).close()
                return port
            except OSError as error:
                reason = error.strerror or str(error)
        if time.monotonic() > until:
            raise RuntimeError(f"nobody answers at {address}:{port or ''} ({reason})")
        time.sleep(0.2)


def _outlast_first(store: Any) -> None:
    """The first rank has most to write in the end. Whoever has started the ranks may end all of them once one has left,
    and does where that was by a signal."""
    with contextlib.suppress(RuntimeError):  # gone already
        store.wait([LEFT], datetime.timedelta(seconds=LAST_WAIT_S))


def is_lost(error: BaseException) -> bool:
    """Another rank is gone, or did not come in time: here it is found out, and nothing else is wrong."""
    import torch.distributed as dist

    if isinstance(error, RankLost | dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID_WHEN_LOST)
