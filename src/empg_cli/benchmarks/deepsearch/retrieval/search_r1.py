"""Client of a `/retrieve` server in both dialects of the field, with `/access` for whole pages.

POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}      Search-R1, verl, ASearcher
POST /retrieve {"query": "...",   "topk": 3, "return_scores": true}      SkyRL, verl-agent
-> {"result": [[{"document": {"id", "contents"}, "score"}, ...], ...]}
POST /access   {"urls": [...]} -> {"result": [{"url", "contents"} | null, ...]}      ASearcher, ours
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.official.corpora import split_contents
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, query_words
from empg_cli.config.deepsearch import HttpRetrieval
from empg_cli.invocation import command
from empg_cli.services.errors import BadAnswerError, NoAnswerError, ServiceError
from empg_cli.services.http import Service


class HttpRetriever:
    name = "http"
    is_local = False

    def __init__(self, settings: HttpRetrieval) -> None:
        self._urls = tuple(url.rstrip("/") for url in settings.urls)
        self._turn = cycle(self._urls)
        self._takes_lists = settings.dialect == "queries"
        self._index: dict[str, Any] = {}
        self.server = f"the /retrieve server at {', '.join(self._urls)}"
        self._service = Service.of(self.server, settings)

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        asked = [query for query in queries if query_words(query)]
        if self._takes_lists:
            found = await self._retrieve({"queries": asked}, top_k, len(asked)) if asked else []
        else:
            answers = await asyncio.gather(*(self._retrieve({"query": query}, top_k, 1) for query in asked))
            found = [answer[0] for answer in answers]
        results = iter(found)
        return [next(results) if query_words(query) else [] for query in queries]

    async def open(self, id_: str) -> Hit | None:
        """Through `/access`, which Search-R1's own server does not have: then no page can be opened."""

        def read(answer: Any) -> Hit | None:
            page = answer["result"][0]
            if page is None:
                return None
            title, text = split_contents(page["contents"])
            return Hit(id_, title, text, url=str(page.get("url", "")))

        return await self._service.ask("POST", f"{next(self._turn)}/access", read, json={"urls": [id_]})

    async def check(self) -> None:
        """Ask every server once; servers of ours also say what they have indexed, and that must be one thing."""
        await asyncio.gather(*(self._check(url) for url in self._urls))
        described = [await self._describe(url) for url in self._urls]
        if len({str(index.get("digest")) for index in described}) > 1:
            raise DataError(f"the servers of benchmark.retrieval.urls have different corpora: {described}")
        self._index = described[0]

    async def _check(self, url: str) -> None:
        try:
            await self._retrieve({"queries": ["test"]} if self._takes_lists else {"query": "test"}, 1, 1, url)
        except ServiceError as error:
            raise DataError(
                f"no search engine at {url}/retrieve: {error}. Start one ({command('data', 'serve', 'deepsearch')}, or "
                "Search-R1's retrieval_server.py), or fix benchmark.retrieval.urls"
            ) from None

    async def _describe(self, url: str) -> dict[str, Any]:
        try:
            answer = await self._service.call("GET", f"{url}/health")
        except ServiceError:
            return {}  # Search-R1's own server has no such address
        known = answer if isinstance(answer, dict) else {}
        return {key: known[key] for key in ("engine", "passages", "digest") if key in known}

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": self.name, "urls": list(self._urls), "index": self._index}

    async def close(self) -> None:
        await self._service.close()

    async def _retrieve(
        self, question: dict[str, Any], top_k: int, expected: int, url: str | None = None
    ) -> list[list[Hit]]:
        """One list of hits per query."""
        body = question | {"topk": top_k, "return_scores": True}

        def read(answer: Any) -> list[list[Hit]]:
            rows = answer["result"]
            if not self._takes_lists and rows and isinstance(rows[0], dict):
                rows = [rows]  # some single-query servers leave the outer list out
            hits = [[_hit(item) for item in row] for row in rows]
            if len(hits) != expected:
                raise BadAnswerError(f"/retrieve answered {len(hits)} queries of {expected}")
            return hits

        try:
            return await self._service.ask("POST", f"{url or next(self._turn)}/retrieve", read, json=body)
        except NoAnswerError as error:
            if "HTTP 422" in str(error):
                other = "query" if self._takes_lists else "queries"
                raise NoAnswerError(
                    f"{error}; the other dialect may help: benchmark.retrieval.dialect={other}"
                ) from None
            raise


def _hit(item: dict[str, Any]) -> Hit:
    """A scored document, or the bare document that servers send with return_scores=false."""
    document = item.get("document", item)
    title, text = split_contents(document["contents"])
    url, id_ = str(document.get("url") or ""), document.get("id")
    return Hit(url if id_ in (None, "") else str(id_), title, text, float(item.get("score") or 0.0), url)
