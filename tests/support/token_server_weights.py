"""The worker side of the gloo weight transfer, as the fake vLLM server does it: it joins the trainer's group and takes
every tensor from rank 0, in the order that the update names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

JOINING, RECEIVING = timedelta(seconds=60), timedelta(seconds=120)


@dataclass
class InitInfo:
    master_address: str
    master_port: int
    world_size: int
    rank_offset: int = 1


@dataclass
class UpdateInfo:
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class TransferError(Exception):
    """What vLLM raises in a worker; its server answers 500."""


class WeightTransfer:
    def __init__(self, backend: str | None) -> None:
        """backend: of --weight-transfer-config; None = the option was not given."""
        self._backend = backend
        self._group: Any = None
        self._store: Any = None
        self._is_active = False

    def init(self, init_info: dict[str, Any]) -> None:
        """Returns when all members of the group are there."""
        self._check()
        try:
            info = InitInfo(**init_info)
        except TypeError as error:
            raise TransferError(f"Invalid init_info for GlooEngine: {error}") from error
        store = dist.TCPStore(  # type: ignore[attr-defined]
            info.master_address, info.master_port, info.world_size, False, timeout=JOINING
        )
        prefixed = dist.PrefixStore("wt", store)  # type: ignore[attr-defined]
        self._group = dist.ProcessGroupGloo(prefixed, info.rank_offset, info.world_size, RECEIVING)
        self._store = store

    def shutdown(self) -> None:
        if self._is_active:
            raise TransferError("Cannot release a trainer connection during a weight update")
        self.drop()

    def drop(self) -> None:
        self._group = self._store = None

    def start(self) -> None:
        self._check()
        if self._is_active:
            raise TransferError(
                "start_weight_update called while a weight update is already active. Call finish_weight_update first."
            )
        self._is_active = True

    def receive(self, update_info: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        self._check()
        if not self._is_active:
            raise TransferError("start_weight_update must be called before update_weights.")
        try:
            info = UpdateInfo(**update_info)
            for name, dtype, shape in zip(info.names, info.dtype_names, info.shapes, strict=True):
                value = torch.empty(shape, dtype=getattr(torch, dtype))
                options = dist.BroadcastOptions()
                options.rootRank = 0
                self._group.broadcast([value], options).wait()
                yield name, value
        except BaseException as error:
            self._is_active = False
            if isinstance(error, TypeError):
                raise TransferError(f"Invalid update_info for GlooEngine: {error}") from error
            raise

    def finish(self) -> None:
        self._check()
        if not self._is_active:
            raise TransferError("finish_weight_update called without a matching start_weight_update.")
        self._is_active = False

    def _check(self) -> None:
        if self._backend is None:
            raise TransferError(
                "Weight transfer not configured. Please set weight_transfer_config to enable weight transfer."
            )
