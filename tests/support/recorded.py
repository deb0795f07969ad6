"""A capture as a CUDA graph makes one, on a CPU: the calls of a function, played again on the very tensors they had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ASKS_THE_DEVICE = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select")
"""Operations whose result the host waits for; a capture fails at them."""


class Recorder(TorchDispatchMode):
    """Notes every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(function).startswith(ASKS_THE_DEVICE), f"{function} waits for the device"
        out = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for function, args, kwargs, out in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(_tensors(out), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():  # else a view, or written in place
                    old.copy_(new)


def recorded(run: Callable[[], None]) -> Callable[[], None]:
    """What does again what `run` does, as `decoding.Capture` asks. It runs once while it is recorded, so the first call
    does nothing."""
    recorder = Recorder()
    with recorder:
        run()
    calls = 0

    def again() -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            recorder.replay()

    return again


def _tensors(out: Any) -> list[Tensor]:
    parts = out if isinstance(out, tuple | list) else [out]
    return [part for part in parts if isinstance(part, Tensor)]
