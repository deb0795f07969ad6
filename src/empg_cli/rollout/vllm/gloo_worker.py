"""The server's end of `GlooTransfer`: a transfer engine that vLLM finds by an entry point of this package.

It runs in the processes of vLLM, in whose environment this package is installed without what it depends on; so nothing
of ours is imported here. vLLM 0.32.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

NAME = "gloo"
TIMEOUT = timedelta(seconds=600)


def register() -> None:
    """What vLLM calls in each of its processes, before it reads its flags."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if NAME not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(NAME, engine())


def engine() -> type[Any]:
    import torch
    import torch.distributed as dist
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    @dataclass
    class InitInfo(WeightTransferInitInfo):  # type: ignore[misc]
        master_address: str
        master_port: int
        world_size: int
        rank_offset: int

    @dataclass
    class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
        names: list[str]
        dtype_names: list[str]
        shapes: list[list[int]]

    class GlooEngine(WeightTransferEngine):  # type: ignore[misc]
        init_info_cls = InitInfo
        update_info_cls = UpdateInfo
        _store: Any = None
        _group: Any = None

        def init_transfer_engine(self, init_info: InitInfo) -> None:
            self._store = dist.TCPStore(  # type: ignore[attr-defined]
                init_info.master_address, init_info.master_port, init_info.world_size, False, timeout=TIMEOUT
            )
            prefixed = dist.PrefixStore("wt", self._store)  # type: ignore[attr-defined]
            rank = init_info.rank_offset + self.parallel_config.rank
            self._group = dist.ProcessGroupGloo(prefixed, rank, init_info.world_size, TIMEOUT)

        def start_weight_update(self) -> None:
            initialize_layerwise_reload(self.model)

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)
            repack_tied_head(self.model)

        def update_weights(self, update_info: dict[str, Any]) -> None:
            self.receive_weights(self.parse_update_info(update_info))  # without a look at an accelerator

        def receive_weights(self, update_info: UpdateInfo) -> None:
            def received() -> Any:
                for name, dtype, shape in zip(
                    update_info.names, update_info.dtype_names, update_info.shapes, strict=True
                ):
                    value = torch.empty(shape, dtype=getattr(torch, dtype))
                    options = dist.BroadcastOptions()
                    options.rootRank = 0
                    self._group.broadcast([value], options).wait()
                    yield name, value

            self.model.load_weights(received())

        def shutdown(self) -> None:
            self._group = self._store = None

    return GlooEngine


def repack_tied_head(model: Any) -> None:
    """On a CPU a head that shares its weights with the embedding stays on packed copies of the old ones."""
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if head is not None and getattr(getattr(model, "config", None), "tie_word_embeddings", False) and method:
        method.process_weights_after_loading(head)
