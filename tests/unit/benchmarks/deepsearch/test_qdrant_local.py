"""The Qdrant adapter over a socket, answered by qdrant-client's own local mode: Qdrant's semantics, not its server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.retrieval.qdrant import QdrantRetriever
from empg_cli.config.deepsearch import QdrantRetrieval

qdrant_client = pytest.importorskip("qdrant_client", reason="needs qdrant-client")
models = qdrant_client.models

PLACES = {1: ("Paris", [1.0, 0.0, 0.0]), 2: ("Rome", [0.0, 1.0, 0.0]), 3: ("Oslo", [0.6, 0.8, 0.0])}


def filled() -> Any:
    client = qdrant_client.QdrantClient(":memory:")
    client.create_collection("wiki", models.VectorParams(size=3, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=id_, vector=vector, payload={"title": name, "text": f"{name} is a city."})
        for id_, (name, vector) in PLACES.items()
    ]
    client.upsert("wiki", points)
    return client


def served(client: Any, reply: Any) -> Callable[[Any], Any]:
    """Qdrant's REST over its local mode: bodies are read by the client's own request models, which refuse others."""

    def answer(request: Any) -> Any:
        match request.method, request.path:
            case "POST", "/v1/embeddings":
                data = [
                    {"index": i, "embedding": next((v for name, v in PLACES.values() if name in text), [0.0, 0.0, 1.0])}
                    for i, text in enumerate(request.json["input"])
                ]
                return reply({"data": data})
            case "POST", "/collections/wiki/points/query/batch":
                batch = models.QueryRequestBatch.model_validate(request.json)
                result = client.query_batch_points("wiki", batch.searches)
            case "POST", "/collections/wiki/points":
                asked = models.PointRequest.model_validate(request.json)
                result = client.retrieve("wiki", asked.ids, with_payload=asked.with_payload)
            case "GET", "/collections/wiki":
                return reply({"result": client.get_collection("wiki").model_dump(mode="json"), "status": "ok"})
            case _:
                return reply({"status": {"error": "Not found"}}, 404)
        return reply({"result": [row.model_dump(mode="json") for row in result], "status": "ok", "time": 0.001})

    return answer


def retriever(url: str) -> QdrantRetriever:
    return QdrantRetriever(
        QdrantRetrieval(
            engine="qdrant",
            url=url,
            collection="wiki",
            title_field="title",
            text_field="text",
            api_key_env=None,
            embeddings_url=f"{url}/v1",
            embeddings_model="e5",
            embeddings_key_env=None,
            query_prefix="query: ",
            timeout_s=5.0,
            attempts=1,
            concurrency=4,
        )
    )


def test_hits_come_by_cosine_and_pages_by_id(fake_server: Any, reply: Any) -> None:
    engine = retriever(fake_server(served(filled(), reply)).url)

    async def play() -> Any:
        await engine.check()
        return await engine.search(["Paris", "?", "Rome"], 2), await engine.open("3"), await engine.open("77")

    found, page, nothing = asyncio.run(play())
    # cosines with Paris: Paris 1, Oslo 0.6, Rome 0; with Rome: Rome 1, Oslo 0.8, Paris 0
    assert [[hit.title for hit in hits] for hits in found] == [["Paris", "Oslo"], [], ["Rome", "Oslo"]]
    assert [hit.score for hit in found[0]] == pytest.approx([1.0, 0.6], abs=1e-5)
    assert found[2][1].score == pytest.approx(0.8, abs=1e-5)
    assert (page.id, page.title, page.text) == ("3", "Oslo", "Oslo is a city.")
    assert nothing is None


def test_an_empty_collection_stops_before_the_first_episode(fake_server: Any, reply: Any) -> None:
    client = filled()
    client.delete("wiki", models.PointIdsList(points=list(PLACES)))
    with pytest.raises(DataError, match="holds no points"):
        asyncio.run(retriever(fake_server(served(client, reply)).url).check())
