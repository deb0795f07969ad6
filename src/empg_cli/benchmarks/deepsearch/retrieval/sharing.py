"""A search engine of which the members of a group ask the same thing once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Retriever
from empg_cli.services.in_flight import InFlight
from empg_cli.services.tally import Tally


class RemoteRetriever(Retriever, Protocol):
    server: str
    """As messages call it, with its address."""


class SharedRetriever:
    """A remote engine whose equal calls in flight share one answer, or one failure. Nothing is kept afterwards.

    Every question counts in `tallies`, also one that another has asked for it: each has to do with the answer."""

    is_local = False

    def __init__(self, inner: RemoteRetriever) -> None:
        self.name = inner.name
        self.tallies = (Tally(inner.server),)
        self._inner = inner
        self._searches: InFlight[list[list[Hit]]] = InFlight()
        self._pages: InFlight[Hit | None] = InFlight()

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        with self.tallies[0].question():
            return list(await self._searches.share((*queries, top_k), lambda: self._inner.search(queries, top_k)))

    async def open(self, id_: str) -> Hit | None:
        with self.tallies[0].question():
            return await self._pages.share(id_, lambda: self._inner.open(id_))

    async def check(self) -> None:
        await self._inner.check()

    def fingerprint(self) -> dict[str, Any]:
        return self._inner.fingerprint()

    async def close(self) -> None:
        await self._inner.close()
