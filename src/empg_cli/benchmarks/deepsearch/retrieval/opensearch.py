"""Elasticsearch or OpenSearch through plain `_msearch`: no vendor client, theirs refuse each other's servers.

Contract (both products, 7 to 9 and 1 to 3): NDJSON of header and body lines in, `responses[].hits.hits[]._source` out;
a failed search is a response with `error` inside HTTP 200. Taken from the documentation, not run against a real server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, query_words
from empg_cli.config.deepsearch import OpenSearchRetrieval
from empg_cli.services.api_keys import api_key
from empg_cli.services.errors import NoAnswerError, ServiceError
from empg_cli.services.http import Service


class OpenSearchRetriever:
    name = "opensearch"
    is_local = False

    def __init__(self, settings: OpenSearchRetrieval) -> None:
        self._settings = settings
        self._url = settings.url.rstrip("/")
        key = api_key(settings.api_key_env, "OpenSearch")
        self._service = Service.of("OpenSearch", settings, {"Authorization": f"ApiKey {key}"} if key else None)

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        asked = [query for query in queries if query_words(query)]
        found = iter(await self._msearch(asked, top_k) if asked else [])
        return [next(found) if query_words(query) else [] for query in queries]

    async def open(self, id_: str) -> Hit | None:
        """The document itself: an index has no pages of several passages."""
        body = {"query": {"ids": {"values": [id_]}}, "size": 1}
        answer = await self._service.call("POST", f"{self._url}/{self._settings.index}/_search", json=body)
        hits = self._hits(answer)
        return hits[0] if hits else None

    async def check(self) -> None:
        try:
            answer = await self._service.call("GET", f"{self._url}/{self._settings.index}/_count")
        except ServiceError as error:
            raise DataError(
                f"the index {self._settings.index!r} at {self._url} does not answer: {error}; "
                "see benchmark.retrieval.url, .index and .api_key_env"
            ) from None
        if not isinstance(answer, dict) or not answer.get("count"):
            raise DataError(f"the index {self._settings.index!r} at {self._url} holds no documents")

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": self.name, "url": self._url, "index": self._settings.index}

    async def close(self) -> None:
        await self._service.close()

    async def _msearch(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        lines = []
        for query in queries:
            lines += ["{}", json.dumps(self._query(query, top_k), ensure_ascii=False)]
        answer = await self._service.call(
            "POST",
            f"{self._url}/{self._settings.index}/_msearch",
            content=("\n".join(lines) + "\n").encode(),
            headers={"Content-Type": "application/x-ndjson"},
        )
        responses = answer.get("responses") if isinstance(answer, dict) else None
        if not isinstance(responses, list) or len(responses) != len(queries):
            raise NoAnswerError(f"OpenSearch answered in an unknown form: {str(answer)[:120]}")
        return [self._hits(response) for response in responses]

    def _query(self, query: str, top_k: int) -> dict[str, Any]:
        """Bare words in a `multi_match`: its query text has no grammar."""
        settings = self._settings
        fields = [f"{settings.title_field}^{settings.title_boost:g}", settings.text_field]
        match = {"query": " ".join(query_words(query)), "fields": fields, "type": "most_fields"}
        return {"query": {"multi_match": match}, "size": top_k}

    def _hits(self, response: Any) -> list[Hit]:
        settings = self._settings
        if isinstance(response, dict) and "error" in response:
            raise NoAnswerError(f"OpenSearch: {str(response['error'])[:120]}")
        try:
            return [
                Hit(
                    str(hit["_id"]),
                    str(hit["_source"].get(settings.title_field, "")),
                    str(hit["_source"][settings.text_field]),
                    float(hit.get("_score") or 0.0),
                    str(hit["_source"].get("url") or ""),
                )
                for hit in response["hits"]["hits"]
            ]
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise NoAnswerError(f"OpenSearch answered in an unknown form (missing {error})") from None
