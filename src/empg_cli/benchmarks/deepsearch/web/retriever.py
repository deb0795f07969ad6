"""A web search engine, and a reader for its pages, as a `Retriever`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from empg_cli.benchmarks.deepsearch.retrieval.base import MAX_QUERY_CHARS, Hit, query_words
from empg_cli.benchmarks.deepsearch.web.asking import Asker, Budget, host_of, open_cache
from empg_cli.benchmarks.deepsearch.web.providers import Brave, JinaReader, Provider, SearxNG, Serper, Tavily
from empg_cli.config.deepsearch import WebRetrieval
from empg_cli.services.api_keys import api_key
from empg_cli.services.tally import Tally


class WebRetriever:
    is_local = False

    def __init__(self, settings: WebRetrieval) -> None:
        self.name: str = settings.engine
        self._settings = settings
        provider, reader = _provider(settings), _reader(settings) if settings.reader else None
        self._cache = open_cache(settings.cache, settings.mode)
        self.budget = Budget(settings.max_calls, settings.usd_per_call)
        self.searches = self._asker(provider)
        self.pages = self._asker(reader) if reader else None
        own = [host_of(reader.base_url)] if reader else []  # through the reader's own address all others could be read
        self._blocked = (*own, *(domain.lower().strip(".") for domain in settings.blocked_domains))

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        return list(await asyncio.gather(*(self._search(query, top_k) for query in queries)))

    async def _search(self, query: str, top_k: int) -> list[Hit]:
        if not query_words(query):
            return []
        with self.searches.tally.question():
            hits = await self.searches.ask(query[:MAX_QUERY_CHARS], top_k)
        return [hit for hit in hits if not self._is_blocked(hit.url)]

    async def open(self, id_: str) -> Hit | None:
        """The page behind a URL; None without a reader, and for blocked or other addresses."""
        if self.pages is None or not id_.startswith(("http://", "https://")) or self._is_blocked(id_):
            return None
        with self.pages.tally.question():
            pages = await self.pages.ask(id_, 1)
        return pages[0] if pages else None

    async def check(self) -> None:
        """Keys and cache were looked at when the retriever was made; a test call would cost money."""

    def fingerprint(self) -> dict[str, Any]:
        """A live web is not reproducible: the mode says so, and a recording is known by its size."""
        return {
            "engine": self.name,
            "reader": self._settings.reader,
            "mode": self._settings.mode,
            "recorded_answers": len(self._cache) if self._cache is not None else 0,
        }

    @property
    def tallies(self) -> list[Tally]:
        return [asker.tally for asker in (self.searches, self.pages) if asker]

    def costs(self) -> dict[str, float]:
        """Since the retriever was made: calls sent, their price, answers from the cache, calls shared in flight."""
        askers = [asker for asker in (self.searches, self.pages) if asker]
        return {
            "calls": float(self.budget.calls),
            "cost_usd": self.budget.cost_usd,
            "cached": float(sum(asker.num_cached for asker in askers)),
            "joined": float(sum(asker.num_joined for asker in askers)),
        }

    async def close(self) -> None:
        for asker in (self.searches, self.pages):
            if asker:
                await asker.close()
        if self._cache is not None:
            self._cache.close()

    def _asker(self, provider: Provider) -> Asker:
        return Asker(provider, self._settings, self._cache, self.budget)

    def _is_blocked(self, url: str) -> bool:
        host = host_of(url)
        return any(host == domain or host.endswith(f".{domain}") for domain in self._blocked)


def _provider(settings: WebRetrieval) -> Provider:
    """Replay needs no key."""
    key = None if settings.mode == "replay" else api_key(settings.api_key_env, settings.engine)
    address = settings.base_url.rstrip("/") if settings.base_url else None
    match settings.engine:
        case "serper":
            return Serper(key, address or Serper.ADDRESS)
        case "tavily":
            return Tavily(key, address or Tavily.ADDRESS)
        case "brave":
            return Brave(key, address or Brave.ADDRESS)
        case "searxng":
            assert address is not None  # the schema's own check
            return SearxNG(address)


def _reader(settings: WebRetrieval) -> Provider:
    key = None if settings.mode == "replay" else api_key(settings.reader_key_env, "the Jina reader")
    return JinaReader(key, settings.reader_url.rstrip("/") if settings.reader_url else JinaReader.ADDRESS)
