"""Remote engines over a real socket: /retrieve in both dialects, OpenSearch, Qdrant; and what goes wrong."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Retriever
from empg_cli.benchmarks.deepsearch.retrieval.opensearch import OpenSearchRetriever
from empg_cli.benchmarks.deepsearch.retrieval.qdrant import QdrantRetriever
from empg_cli.benchmarks.deepsearch.retrieval.search_r1 import HttpRetriever
from empg_cli.config.deepsearch import HttpRetrieval, OpenSearchRetrieval, QdrantRetrieval
from empg_cli.services.errors import AccessDeniedError, NoAnswerError
from empg_cli.services.http import RateLimit, Service, retry_after

LIMITS: dict[str, Any] = {"timeout_s": 5.0, "attempts": 3, "concurrency": 8}
DOCUMENTS = {"paris": "Paris is in France.", "rome": "Rome is in Italy."}


class RetrieveServer:
    """Search-R1's server in twenty lines; `dialect` decides which body it takes."""

    def __init__(self, reply: Any, dialect: str, *, scores: bool = True) -> None:
        self.reply, self.dialect, self.scores = reply, dialect, scores

    def __call__(self, request: Any) -> Any:
        if request.path == "/access":
            return self.reply({"result": [self._page(id_) for id_ in request.json["urls"]]})
        if self.dialect not in request.json:
            return self.reply({"detail": f"{self.dialect} is required"}, 422)
        queries = request.json[self.dialect]
        rows = [self._row(query) for query in (queries if isinstance(queries, list) else [queries])]
        return self.reply({"result": rows})

    def _page(self, id_: str) -> dict[str, str] | None:
        text = DOCUMENTS.get(id_)
        return {"url": id_, "contents": f'"{id_}"\n{text} The whole page.'} if text else None

    def _row(self, query: str) -> list[Any]:
        documents = [
            {"id": name, "contents": f'"{name.title()}"\n{text}'} for name, text in DOCUMENTS.items() if name in query
        ]
        return [{"document": document, "score": 2.5} if self.scores else document for document in documents]


def http_settings(url: str, **keys: Any) -> HttpRetrieval:
    return HttpRetrieval(**{"engine": "http", "urls": [url], "dialect": "queries", **LIMITS, **keys})


@pytest.mark.parametrize("dialect", ["queries", "query"])
def test_retrieve_both_dialects(fake_server: Callable[..., Any], reply: Any, dialect: str) -> None:
    server = fake_server(RetrieveServer(reply, dialect))
    retriever = HttpRetriever(http_settings(server.url, dialect=dialect))

    async def play() -> list[list[Hit]]:
        await retriever.check()
        found = await retriever.search(["paris and rome", "?!", "rome", "nowhere"], 3)
        await retriever.close()
        return found

    found = asyncio.run(play())
    assert [[hit.id for hit in hits] for hits in found] == [["paris", "rome"], [], ["rome"], []]
    assert found[0][0] == Hit("paris", "Paris", "Paris is in France.", 2.5, "")
    body = server.requests[-1].json
    assert body["topk"] == 3
    assert body["return_scores"] is True


def test_retrieve_without_scores_gives_bare_documents(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(RetrieveServer(reply, "queries", scores=False))
    found = asyncio.run(HttpRetriever(http_settings(server.url)).search(["rome"], 3))
    assert found == [[Hit("rome", "Rome", "Rome is in Italy.", 0.0, "")]]


def test_the_wrong_dialect_names_the_other_one(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(RetrieveServer(reply, "query"))
    with pytest.raises(DataError, match="dialect=query"):
        asyncio.run(HttpRetriever(http_settings(server.url)).check())


def test_access_opens_pages(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(RetrieveServer(reply, "queries"))
    retriever = HttpRetriever(http_settings(server.url))

    async def play() -> tuple[Hit | None, Hit | None]:
        return await retriever.open("paris"), await retriever.open("atlantis")

    page, nothing = asyncio.run(play())
    assert page is not None
    assert (page.title, page.text) == ("paris", "Paris is in France. The whole page.")
    assert nothing is None


def test_several_servers_take_turns(fake_server: Callable[..., Any], reply: Any) -> None:
    servers = [fake_server(RetrieveServer(reply, "queries")) for _ in range(2)]
    settings = http_settings("http://unused", dialect="queries").model_copy(
        update={"urls": [server.url for server in servers]}
    )
    retriever = HttpRetriever(settings)

    async def play() -> None:
        for _ in range(4):
            await retriever.search(["rome"], 1)

    asyncio.run(play())
    assert [len(server.requests) for server in servers] == [2, 2]


def opensearch(url: str, **keys: Any) -> OpenSearchRetriever:
    settings: dict[str, Any] = {
        "engine": "opensearch",
        "url": url,
        "index": "wiki",
        "title_field": "title",
        "text_field": "body",
        "title_boost": 2.0,
        "api_key_env": None,
        **LIMITS,
        **keys,
    }
    return OpenSearchRetriever(OpenSearchRetrieval(**settings))


def opensearch_hits(*ids: str) -> dict[str, Any]:
    """As Elasticsearch 8 and OpenSearch 2 answer."""
    hits = [
        {"_index": "wiki", "_id": i, "_score": 1.5, "_source": {"title": f"T{i}", "body": f"text {i}"}} for i in ids
    ]
    return {"took": 1, "timed_out": False, "hits": {"total": {"value": len(ids), "relation": "eq"}, "hits": hits}}


def test_opensearch_msearch(fake_server: Callable[..., Any], reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret")
    server = fake_server(
        lambda request: reply({"took": 2, "responses": [opensearch_hits("1", "2"), opensearch_hits()]})
    )
    found = asyncio.run(opensearch(server.url, api_key_env="TEST_KEY").search(["Who (is) AND X?", "", "none"], 2))
    assert found == [[Hit("1", "T1", "text 1", 1.5, ""), Hit("2", "T2", "text 2", 1.5, "")], [], []]
    request = server.requests[0]
    assert request.path == "/wiki/_msearch"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["authorization"] == "ApiKey secret"
    header, body, *_ = request.body.decode().split("\n")
    assert header == "{}"
    assert '"query": "who is and x"' in body
    assert '"fields": ["title^2", "body"]' in body
    assert request.body.endswith(b"\n")  # _msearch demands it


def test_opensearch_opens_one_document_and_counts_before_the_start(fake_server: Callable[..., Any], reply: Any) -> None:
    def answer(request: Any) -> Any:
        return reply({"count": 7}) if request.path.endswith("_count") else reply(opensearch_hits("9"))

    retriever = opensearch(fake_server(answer).url)

    async def play() -> Hit | None:
        await retriever.check()
        return await retriever.open("9")

    assert asyncio.run(play()) == Hit("9", "T9", "text 9", 1.5, "")


def test_opensearch_empty_index_stops(fake_server: Callable[..., Any], reply: Any) -> None:
    with pytest.raises(DataError, match="holds no documents"):
        asyncio.run(opensearch(fake_server(lambda request: reply({"count": 0})).url).check())


def test_opensearch_error_inside_a_good_answer(fake_server: Callable[..., Any], reply: Any) -> None:
    failed = {"error": {"type": "index_not_found_exception"}, "status": 404}
    server = fake_server(lambda request: reply({"responses": [failed]}))
    with pytest.raises(NoAnswerError, match="index_not_found"):
        asyncio.run(opensearch(server.url).search(["x"], 1))


def qdrant(url: str, **keys: Any) -> QdrantRetriever:
    settings: dict[str, Any] = {
        "engine": "qdrant",
        "url": url,
        "collection": "wiki",
        "title_field": "title",
        "text_field": "text",
        "api_key_env": None,
        "embeddings_url": f"{url}/v1",
        "embeddings_model": "e5",
        "embeddings_key_env": None,
        "query_prefix": "query: ",
        **LIMITS,
        **keys,
    }
    return QdrantRetriever(QdrantRetrieval(**settings))


def qdrant_server(reply: Any) -> Callable[[Any], Any]:
    """As Qdrant 1.12 and an OpenAI-compatible embeddings server answer; vectors come back in another order."""

    def point(i: int) -> dict[str, Any]:
        return {"id": i, "version": 1, "score": 0.9, "payload": {"title": f"T{i}", "text": f"text {i}"}}

    def answer(request: Any) -> Any:
        if request.path == "/v1/embeddings":
            texts = request.json["input"]
            data = [
                {"object": "embedding", "index": i, "embedding": [float(len(text))]} for i, text in enumerate(texts)
            ]
            return reply({"object": "list", "data": data[::-1], "model": "e5"})
        if request.path.endswith("/points/query/batch"):
            results = [{"points": [point(int(search["query"][0]))]} for search in request.json["searches"]]
            return reply({"result": results, "status": "ok", "time": 0.001})
        if request.path.endswith("/points"):
            ids = request.json["ids"]
            if not isinstance(ids[0], int):
                return reply({"status": {"error": "Format error in JSON body: bad id"}}, 400)
            return reply({"result": [point(ids[0])] if ids[0] < 100 else [], "status": "ok"})
        return reply({"result": {"status": "green", "points_count": 3}, "status": "ok"})

    return answer


def test_qdrant_with_an_embeddings_server(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(qdrant_server(reply))
    retriever = qdrant(server.url)

    async def play() -> tuple[list[list[Hit]], list[Hit | None]]:
        await retriever.check()
        found = await retriever.search(["ab", " ", "abcd"], 1)
        return found, [await retriever.open(id_) for id_ in ("5", "500", "no-such-id")]

    found, pages = asyncio.run(play())
    # the fake's vector is the length of "query: " + query, and its only point has that id
    assert [[hit.id for hit in hits] for hits in found] == [["9"], [], ["11"]]
    assert found[0][0] == Hit("9", "T9", "text 9", 0.9, "")
    assert pages == [Hit("5", "T5", "text 5", 0.9, ""), None, None]


def make(kind: str, url: str, **keys: Any) -> Retriever:
    match kind:
        case "http":
            return HttpRetriever(http_settings(url, **keys))
        case "opensearch":
            return opensearch(url, **keys)
        case _:
            return qdrant(url, **keys)


REMOTE = ["http", "opensearch", "qdrant"]


@pytest.mark.parametrize("kind", REMOTE)
def test_server_errors_are_tried_again_and_then_a_search_error(
    fake_server: Callable[..., Any], reply: Any, kind: str
) -> None:
    server = fake_server(lambda request: reply({"detail": "overloaded"}, 503))
    with pytest.raises(NoAnswerError, match=r"HTTP 503 .*overloaded.* tried 3 times"):
        asyncio.run(make(kind, server.url).search(["x"], 1))
    assert len(server.requests) == 3


@pytest.mark.parametrize("kind", REMOTE)
def test_401_is_final(fake_server: Callable[..., Any], reply: Any, kind: str) -> None:
    server = fake_server(lambda request: reply({"message": "Unauthorized."}, 401))
    with pytest.raises(AccessDeniedError, match="API key"):
        asyncio.run(make(kind, server.url).search(["x"], 1))
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", REMOTE)
def test_a_slow_server_times_out(fake_server: Callable[..., Any], reply: Any, kind: str) -> None:
    server = fake_server(lambda request: reply({}, delay_s=2.0))
    with pytest.raises(NoAnswerError, match="no answer in time"):
        asyncio.run(make(kind, server.url, timeout_s=0.1, attempts=1).search(["x"], 1))


@pytest.mark.parametrize("kind", REMOTE)
def test_a_server_that_hangs_up_is_tried_again(fake_server: Callable[..., Any], reply: Any, kind: str) -> None:
    server = fake_server(lambda request: reply(hang_up=True))
    with pytest.raises(NoAnswerError, match="tried 3 times"):
        asyncio.run(make(kind, server.url).search(["x"], 1))
    assert len(server.requests) == 3


@pytest.mark.parametrize("kind", REMOTE)
@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"[]", b"null", b'{"result": 3}', b'{"result": [[3]]}'])
def test_malformed_bodies(fake_server: Callable[..., Any], reply: Any, kind: str, body: bytes) -> None:
    server = fake_server(lambda request: reply(body))
    with pytest.raises(NoAnswerError):
        asyncio.run(make(kind, server.url).search(["x"], 1))


@pytest.mark.parametrize("kind", REMOTE)
def test_an_engine_that_is_down_stops_before_the_first_step(kind: str) -> None:
    with socket.socket() as free:  # a port that nobody listens on
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DataError, match=r"benchmark\.retrieval"):
        asyncio.run(make(kind, url).check())


def test_429_waits_as_long_as_the_server_says(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(RetrieveServer(reply, "queries"))
    server.script = [reply({}, 429, {"Retry-After": "0.4"}), reply({}, 429, {"Retry-After": "0"})]
    start = time.monotonic()
    found = asyncio.run(HttpRetriever(http_settings(server.url)).search(["rome"], 1))
    assert found[0][0].id == "rome"
    assert time.monotonic() - start >= 0.4
    assert len(server.requests) == 3


def test_retry_after_as_a_date() -> None:
    import email.utils

    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    wait = retry_after({"retry-after": soon})
    assert wait is not None
    assert 25 < wait <= 30
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0.0
    assert retry_after({"retry-after": "tomorrow"}) is None
    assert retry_after({}) is None


def test_concurrency_is_bounded(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(lambda request: reply({"ok": 1}, delay_s=0.02))

    async def play() -> None:
        service = Service("fake", timeout_s=5.0, attempts=1, concurrency=3)
        await asyncio.gather(*(service.call("GET", f"{server.url}/{i}") for i in range(20)))
        await service.close()

    asyncio.run(play())
    assert len(server.requests) == 20
    assert server.most_at_once <= 3


def test_rate_limit_spaces_calls_evenly() -> None:
    async def play() -> float:
        limit = RateLimit(100.0)
        start = time.monotonic()
        await asyncio.gather(*(limit.wait() for _ in range(21)))
        return time.monotonic() - start

    assert asyncio.run(play()) >= 0.2  # 20 gaps of 10 ms
