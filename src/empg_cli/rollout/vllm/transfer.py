"""Weights on their way from the model that learns to servers of vLLM, in the transports that vLLM has: ipc on the same
GPU, nccl between GPUs, and on a CPU gloo, whose other end is `gloo_worker`.

Every rank walks through the weights, since gathering those of a spread model takes all of them; the first one sends.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import torch
from torch import Tensor

from empg_cli.model.policy import Policy
from empg_cli.pulse import beat
from empg_cli.ranks import Ranks
from empg_cli.services.errors import NoAnswerError, ServiceError
from empg_cli.services.vllm import VllmServer

ADAPTER = "adapter"
"""As servers call it."""

Call = Callable[[Callable[[VllmServer], Any]], list[Any]]
"""Asks all servers at once from another thread, and returns what they say or raises what one of them raises."""


class Weights:
    """Those of a policy under the names of its Hugging Face form, in the type that passes compute in. Tied ones come
    once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def _named(self) -> Iterator[tuple[str, Tensor, torch.dtype]]:
        spread = self._policy.sharding is not None
        for name, value in self._policy.model.named_parameters():
            yield name, value.detach(), self._policy.dtype if spread else value.dtype

    def shapes(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, type and whole shape of each, in the order of iteration. Gathers nothing."""
        return [(name, dtype, tuple(value.shape)) for name, value, dtype in self._named()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """A common point of all ranks at each of them."""
        gather: Callable[[Tensor], Tensor] = lambda value: value  # noqa: E731
        if self._policy.sharding is not None:
            from empg_cli.model.sharding import whole

            self._policy.sharding.scatter()  # the root stays whole after a pass without gradient
            gather = whole
        for name, value, dtype in self._named():
            beat()
            yield name, gather(value).to(dtype).contiguous()


class Transfer(Protocol):
    """All methods are common points of all ranks; only the first may raise."""

    def send(self, version: int) -> None:
        """Give all servers the weights as they are.

        Raises:
            ServiceError: a server did not take them.
        """
        ...

    def forget(self) -> None:
        """A server has gone: the group is made anew at the next `send`."""
        ...


class GlooTransfer:
    """Broadcasts over a group of its own, of the first rank and all processes of the servers."""

    def __init__(self, weights: Weights, servers: Sequence[VllmServer], ask: Call, ranks: Ranks, timeout_s: float):
        self._weights, self._servers, self._ask, self._ranks = weights, servers, ask, ranks
        self._timeout = timedelta(seconds=timeout_s)
        self._group: Any = None
        self._store: Any = None

    def forget(self) -> None:
        self._group = self._store = None

    def send(self, version: int) -> None:
        error: Exception | None = None
        if self._ranks.is_first:
            try:
                self._begin()
            except (ServiceError, RuntimeError) as caught:
                error = caught
        with ThreadPoolExecutor(1) as executor:
            receiving = None
            if self._ranks.is_first and error is None:
                info = self._info()
                receiving = executor.submit(self._ask, lambda server: server.receive(info))
            for _, value in self._weights:  # to the end whatever happens: the other ranks gather with this one
                if self._ranks.is_first and error is None:
                    try:
                        self._broadcast(value, receiving)
                    except (ServiceError, RuntimeError) as caught:
                        error = caught
                        self.forget()  # or those that still receive would wait for what does not come
            if receiving is not None:
                try:
                    receiving.result()
                    if error is None:
                        self._ask(lambda server: server.end_update(version))
                except ServiceError as caught:  # says more than the group does
                    error = caught
        if error is not None:
            self.forget()
            raise error if isinstance(error, ServiceError) else NoAnswerError(f"a transfer of weights broke: {error}")

    def _begin(self) -> None:
        if self._group is None:
            self._join()
        self._ask(lambda server: server.begin_update())

    def _join(self) -> None:
        import torch.distributed as dist

        sizes = self._ask(lambda server: server.world_size())
        offsets = {server.url: 1 + sum(sizes[:number]) for number, server in enumerate(self._servers)}
        address, listening = listening_for(self._servers)
        port = listening.getsockname()[1]
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=True, wait_for_workers=False, timeout=self._timeout,
            master_listen_fd=listening.detach(),
        )  # fmt: skip
        info = {"master_address": address, "master_port": port, "world_size": 1 + sum(sizes)}
        with ThreadPoolExecutor(1) as executor:
            joining = executor.submit(
                self._ask, lambda server: server.join_transfer(info | {"rank_offset": offsets[server.url]})
            )
            prefixed = dist.PrefixStore("wt", store)  # type: ignore[attr-defined]
            made: Future[Any] = Future()
            # Beside, and not waited for where a server refuses: it would wait for that one until its time is over.
            threading.Thread(
                target=_make_group, args=(made, prefixed, 1 + sum(sizes), self._timeout), daemon=True
            ).start()
            wait([joining, made], return_when=FIRST_EXCEPTION)
            if made.done():
                made.result()
            joining.result()
        self._group, self._store = made.result(), store

    def _info(self) -> dict[str, Any]:
        shapes = self._weights.shapes()
        return {
            "names": [name for name, _, _ in shapes],
            "dtype_names": [str(dtype).removeprefix("torch.") for _, dtype, _ in shapes],
            "shapes": [list(shape) for _, _, shape in shapes],
        }

    def _broadcast(self, value: Tensor, receiving: Future[Any] | None) -> None:
        import torch.distributed as dist

        if receiving is not None and receiving.done():
            receiving.result()  # raises what a server said
        options = dist.BroadcastOptions()
        options.rootRank = 0
        self._group.broadcast([value.cpu()], options).wait()


def _make_group(made: Future[Any], store: Any, size: int, timeout: timedelta) -> None:
    import torch.distributed as dist

    try:
        made.set_result(dist.ProcessGroupGloo(store, 0, size, timeout))
    except Exception as error:
        made.set_exception(error)


class AdapterTransfer:
    """A LoRA adapter through a folder that the servers see; the weights below it stay as they are. For one rank."""

    def __init__(self, policy: Policy, folder: Path, ask: Call) -> None:
        self._policy, self._folder, self._ask = policy, folder, ask

    def forget(self) -> None: ...

    def send(self, version: int) -> None:
        place = self._folder / f"adapter-{version}"
        self._policy.save(place)
        self._ask(lambda server: server.load_adapter(ADAPTER, str(place.resolve())))
        self._ask(lambda server: server.label(version))
        # Servers read it when they need it, and again after they had no room for it; those before, never again.
        for old in self._folder.glob("adapter-*"):
            if old != place:
                shutil.rmtree(old)


def listening_for(servers: Sequence[VllmServer]) -> tuple[str, socket.socket]:
    """An address of this machine that all servers can reach, and a socket that listens there.

    Raises:
        NoAnswerError: there is none.
    """
    hosts = [(urlsplit(server.url).hostname or "", urlsplit(server.url).port or 80) for server in servers]
    away = [pair for pair in hosts if pair[0] != "localhost" and not pair[0].startswith("127.")]
    host = (away or hosts)[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing
        try:
            probe.connect(host)
        except OSError as error:
            raise NoAnswerError(f"no address of this machine is known that {host[0]} could reach: {error}") from None
        address = str(probe.getsockname()[0])
    return address, socket.create_server((address, 0))
