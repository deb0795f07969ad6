"""Weights to servers on GPUs, by vLLM's own sender. Written after vLLM 0.32; not run, for want of GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from empg_cli.errors import UserError
from empg_cli.extras import pip_install
from empg_cli.ranks import Ranks
from empg_cli.rollout.vllm.transfer import Call, Weights, listening_for
from empg_cli.services.errors import NoAnswerError, ServiceError
from empg_cli.services.vllm import VllmServer


class VllmTransfer:
    """Its `nccl` engine, between GPUs, or `ipc`, on the same one. It is its own client, which speaks to all servers."""

    def __init__(self, kind: str, weights: Weights, servers: Sequence[VllmServer], ask: Call, ranks: Ranks) -> None:
        self._kind, self._weights, self._servers, self._ask, self._ranks = kind, weights, servers, ask, ranks
        self._engine: Any = None
        self._walk: Iterator[tuple[str, Tensor]] | None = None
        self._version = 0

    def forget(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

    def send(self, version: int) -> None:
        self._version = version
        error: Exception | None = None
        if self._engine is None:
            try:
                self._engine = self._made()
            except (ServiceError, RuntimeError, OSError) as caught:
                error = caught
            error = self._ranks.of_first(error)  # before anybody walks through the weights
        if error is None:
            assert self._engine is not None, "made, or there is an error"
            try:
                self._engine.send_weights()
            except torch.OutOfMemoryError:
                raise
            except (ServiceError, RuntimeError, OSError, AssertionError) as caught:
                error = caught
                for _ in self._walk or ():  # to the end: the other ranks gather with this one
                    pass
        if error is not None:
            self.forget()
            raise error if isinstance(error, ServiceError) else NoAnswerError(f"a transfer of weights broke: {error}")

    def _made(self) -> Any:
        try:
            from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
            from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
        except ImportError as error:
            raise UserError(
                f"weights go to servers on GPUs by vLLM's own sender, and this environment has none ({error}): "
                f"{pip_install('vllm')}"
            ) from None
        transfer = self

        class Source(WeightSource):  # type: ignore[misc]
            def metadata(self) -> list[Any]:
                return [ParamMeta(*one) for one in transfer._weights.shapes()]

            def __iter__(self) -> Iterator[tuple[str, Tensor]]:
                transfer._walk = iter(transfer._weights)
                return transfer._walk

        if self._kind == "ipc":
            info: Any = IPCTrainerInitInfo(rank=self._ranks.rank, packed=True)  # a gigabyte at a time
        else:
            size = 1 + sum(self._ask(lambda server: server.world_size())) if self._ranks.is_first else 0
            address, listening = listening_for(self._servers)
            port = listening.getsockname()[1]
            listening.close()
            info = NCCLTrainerInitInfo(address, port, size, rank=self._ranks.rank)
        return WeightTransferTrainerFactory.trainer_init(info, client=self, source=Source())

    # What vLLM's sender calls, from its own threads.

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        sizes = self._ask(lambda server: server.world_size())
        offsets = {server.url: sum(sizes[:number]) for number, server in enumerate(self._servers)}

        def info_for(server: VllmServer) -> dict[str, Any]:
            if "rank_offset" not in init_info:
                return init_info
            return init_info | {"rank_offset": init_info["rank_offset"] + offsets[server.url]}

        self._ask(lambda server: server.join_transfer(info_for(server)))

    def start_weight_update(self) -> None:
        self._ask(lambda server: server.begin_update())

    def update_weights(self, update_info: Any) -> None:
        from vllm.distributed.weight_transfer import clients

        info = clients._json_safe_update_payload(update_info)
        self._ask(lambda server: server.receive(info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._ask(lambda server: server.end_update(self._version))
