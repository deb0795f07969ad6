"""Equal questions in flight are one call: what the members of a group ask alike is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class InFlight(Generic[T]):
    """Equal calls in flight share one answer, or one failure; nothing is kept afterwards. For one event loop."""

    def __init__(self) -> None:
        self.joined = 0
        """Calls that another one answered."""
        self._calls: dict[Hashable, asyncio.Task[T]] = {}

    async def share(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = asyncio.ensure_future(ask())
            call.add_done_callback(lambda _: self._calls.pop(key, None))
        else:
            self.joined += 1
        return await asyncio.shield(call)  # one caller that is cancelled does not take the answer from the others
