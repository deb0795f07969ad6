"""Asking a provider: single flight, cache or replay, budget, cost, rate limit, retries."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import httpx

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.retrieval.base import BudgetSpentError, Hit
from empg_cli.benchmarks.deepsearch.web.providers import Provider
from empg_cli.config.deepsearch import WebRetrieval
from empg_cli.services.cache import AnswerCache
from empg_cli.services.errors import BadAnswerError, NoAnswerError
from empg_cli.services.http import RateLimit, Service
from empg_cli.services.in_flight import InFlight
from empg_cli.services.parsing import read_answer
from empg_cli.services.proxies import proxy_for
from empg_cli.services.tally import Tally


class Budget:
    """Calls sent (retries too) and what the successful ones cost; shared by all providers of a retriever."""

    def __init__(self, max_calls: int | None, usd_per_call: float) -> None:
        self._max_calls, self._usd_per_call = max_calls, usd_per_call
        self.calls = 0
        self.cost_usd = 0.0

    def take(self) -> None:
        if self._max_calls is not None and self.calls >= self._max_calls:
            raise BudgetSpentError(f"all {self._max_calls} search calls of benchmark.retrieval.max_calls are spent")
        self.calls += 1

    def charge(self) -> None:
        self.cost_usd += self._usd_per_call


class Asker:
    """One provider behind a cache. `num_cached` and `num_joined` count what it did not have to ask."""

    def __init__(self, provider: Provider, settings: WebRetrieval, cache: AnswerCache | None, budget: Budget) -> None:
        proxy_for(provider.base_url)  # whether there is a way is known before anything is played
        self._provider, self._cache, self._budget = provider, cache, budget
        self.tally = Tally(f"{provider.name} at {provider.base_url}")
        self._only_replays = settings.mode == "replay"
        self._rate = RateLimit(settings.requests_per_second)
        self._service = Service.of(provider.name, settings, before_attempt=self._before_attempt)
        self._in_flight: InFlight[bytes] = InFlight()
        self.num_cached = 0

    @property
    def num_joined(self) -> int:
        return self._in_flight.joined

    async def ask(self, query: str, count: int) -> list[Hit]:
        """The hits of a query. The members of a group that ask the same thing at once share one call."""
        count = min(count, self._provider.max_results)
        key = self._key(query, count)
        body = self._cache.get(key) if self._cache is not None else None
        if body is None and self._cache is not None and self._only_replays and self._provider.takes_addresses:
            body = self._cache.get(_digest([self._provider.name, query.lower(), count]))  # of an older empg
        if body is not None:
            self.num_cached += 1
            return self._parse(body, count)
        if self._only_replays:
            raise NoAnswerError(f"{query[:80]!r} is not in the recording")
        body = await self._in_flight.share(key, lambda: self._call(key, query, count))
        return self._parse(body, count)

    async def close(self) -> None:
        await self._service.close()

    async def _call(self, key: str, query: str, count: int) -> bytes:
        request = self._provider.request(query, count)
        body = await self._service.call_text(
            request.method, request.url, headers=request.headers, params=request.params, json=request.json
        )
        self._budget.charge()
        self._parse(body, count)  # an answer that cannot be read is not worth keeping
        if self._cache is not None:
            self._cache.put(key, query, body)
        return body

    async def _before_attempt(self) -> None:
        self._budget.take()
        await self._rate.wait()

    def _parse(self, body: bytes, count: int) -> list[Hit]:
        try:
            return read_answer(body, self._provider.parse)[:count]
        except BadAnswerError as error:
            raise BadAnswerError(f"{self._provider.name}: {error}") from None

    def _key(self, query: str, count: int) -> str:
        """Case and spaces of a query do not matter, those of an address do."""
        asked = query if self._provider.takes_addresses else " ".join(query.split()).lower()
        return _digest([self._provider.name, asked, count])


def _digest(asked: list[str | int]) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def host_of(url: str) -> str:
    try:
        return httpx.URL(url).host.lower().rstrip(".")  # with the dot it is the same host
    except (httpx.InvalidURL, TypeError, ValueError):
        return ""


def open_cache(path: str | None, mode: str) -> AnswerCache | None:
    if path is None:
        return None
    file = Path(path).expanduser()
    if mode == "replay" and not file.is_file():
        raise DataError(
            f"nothing to replay: {file} does not exist; record it first with benchmark.retrieval.mode=record"
        )
    try:
        return AnswerCache(file)
    except sqlite3.DatabaseError as error:
        raise DataError(f"{file} is not a search cache: {error}") from None
