"""Equal questions in flight are one call: what the members of a group ask alike is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Retriever

T = TypeVar("T")


class SharedRetriever:
    """A remote engine whose equal calls in flight share one answer, or one failure. Nothing is kept afterwards."""

    is_local = False

    def __init__(self, inner: Retriever) -> None:
        self.name = inner.name
        self.joined = 0
        """Calls that another one answered."""
        self._inner = inner
        self._in_flight: dict[tuple[Any, ...], asyncio.Task[Any]] = {}

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        return list(await self._share(("search", *queries, top_k), lambda: self._inner.search(queries, top_k)))

    async def open(self, id_: str) -> Hit | None:
        return await self._share(("open", id_), lambda: self._inner.open(id_))

    async def check(self) -> None:
        await self._inner.check()

    def fingerprint(self) -> dict[str, Any]:
        return self._inner.fingerprint()

    async def close(self) -> None:
        await self._inner.close()

    async def _share(self, key: tuple[Any, ...], ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        call: asyncio.Task[T] | None = self._in_flight.get(key)
        if call is None:
            call = self._in_flight[key] = asyncio.ensure_future(ask())
            call.add_done_callback(lambda _: self._in_flight.pop(key, None))
        else:
            self.joined += 1
        return await asyncio.shield(call)  # one caller that is cancelled does not take the answer from the others
