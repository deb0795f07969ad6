"""Qdrant's REST API, with query vectors from an OpenAI-compatible embeddings server (vLLM, TEI).

Contract (Qdrant 1.10 and later): `POST /collections/{c}/points/query/batch` with `searches[].query` a vector,
`result[].points[].payload` out. Requests and answers were checked with the models of qdrant-client 1.20, not a real
server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.retrieval.base import MAX_QUERY_CHARS, Hit, query_words
from empg_cli.config.deepsearch import QdrantRetrieval
from empg_cli.services.api_keys import api_key
from empg_cli.services.errors import NoAnswerError, ServiceError
from empg_cli.services.http import Service


class QdrantRetriever:
    name = "qdrant"
    is_local = False

    def __init__(self, settings: QdrantRetrieval) -> None:
        self._settings = settings
        self._collection = f"{settings.url.rstrip('/')}/collections/{settings.collection}"
        key = api_key(settings.api_key_env, "Qdrant")
        self._service = Service.of("Qdrant", settings, {"api-key": key} if key else None)
        embeddings_key = api_key(settings.embeddings_key_env, "the embeddings server")
        headers = {"Authorization": f"Bearer {embeddings_key}"} if embeddings_key else None
        self._embeddings = Service.of("the embeddings server", settings, headers)

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        asked = [query for query in queries if query_words(query)]
        found = iter(await self._query(asked, top_k) if asked else [])
        return [next(found) if query_words(query) else [] for query in queries]

    async def open(self, id_: str) -> Hit | None:
        """The point itself; Qdrant ids are integers or UUIDs."""
        body = {"ids": [int(id_) if id_.isascii() and id_.isdigit() else id_], "with_payload": True}
        try:
            answer = await self._service.call("POST", f"{self._collection}/points", json=body)
        except NoAnswerError as error:
            if "HTTP 400" in str(error):  # not an id that Qdrant could have
                return None
            raise
        hits = self._hits(answer.get("result") if isinstance(answer, dict) else None)
        return hits[0] if hits else None

    async def check(self) -> None:
        try:
            answer = await self._service.call("GET", self._collection)
            await self._vectors(["test"])
        except ServiceError as error:
            raise DataError(
                f"Qdrant retrieval cannot start: {error}; see benchmark.retrieval.url, .collection and .embeddings_url"
            ) from None
        if not (answer.get("result") or {}).get("points_count"):
            raise DataError(f"the Qdrant collection {self._collection} holds no points")

    def fingerprint(self) -> dict[str, Any]:
        return {
            "engine": self.name,
            "collection": self._collection,
            "embeddings_model": self._settings.embeddings_model,
        }

    async def close(self) -> None:
        await self._service.close()
        await self._embeddings.close()

    async def _query(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        vectors = await self._vectors(queries)
        searches = [{"query": vector, "limit": top_k, "with_payload": True} for vector in vectors]
        answer = await self._service.call("POST", f"{self._collection}/points/query/batch", json={"searches": searches})
        results = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(queries):
            raise NoAnswerError(f"Qdrant answered in an unknown form: {str(answer)[:120]}")
        return [self._hits(result.get("points")) for result in results]

    async def _vectors(self, queries: Sequence[str]) -> list[list[float]]:
        settings = self._settings
        body = {
            "model": settings.embeddings_model,
            "input": [settings.query_prefix + query[:MAX_QUERY_CHARS] for query in queries],
        }
        url = f"{settings.embeddings_url.rstrip('/')}/embeddings"
        answer = await self._embeddings.call("POST", url, json=body)
        try:
            vectors = [row["embedding"] for row in sorted(answer["data"], key=lambda row: int(row["index"]))]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise NoAnswerError(f"the embeddings server answered in an unknown form: {str(answer)[:120]}") from None
        if len(vectors) != len(queries):
            raise NoAnswerError(f"the embeddings server sent {len(vectors)} vectors for {len(queries)} queries")
        return vectors

    def _hits(self, points: Any) -> list[Hit]:
        settings = self._settings
        try:
            return [
                Hit(
                    str(point["id"]),
                    str(point["payload"].get(settings.title_field, "")),
                    str(point["payload"][settings.text_field]),
                    float(point.get("score") or 0.0),
                    str(point["payload"].get("url") or ""),
                )
                for point in points
            ]
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise NoAnswerError(f"Qdrant answered in an unknown form (missing {error})") from None
