"""Web engines over a real socket: forms, single flight, cache, replay, budget, cost, retries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.retrieval.base import BudgetSpentError, Hit
from empg_cli.benchmarks.deepsearch.web.retriever import WebRetriever
from empg_cli.config.deepsearch import WebRetrieval
from empg_cli.services.errors import AccessDeniedError, MissingKeyError, NoAnswerError

ENGINES = ["serper", "tavily", "brave", "searxng"]


def settings(engine: str, url: str, **keys: Any) -> WebRetrieval:
    defaults: dict[str, Any] = {
        "engine": engine,
        "base_url": url,
        "api_key_env": None if engine == "searxng" else "TEST_SEARCH_KEY",
        "reader": None,
        "reader_url": None,
        "reader_key_env": None,
        "mode": "live",
        "cache": None,
        "requests_per_second": None,
        "max_calls": None,
        "usd_per_call": 0.001,
        "blocked_domains": [],
        "timeout_s": 5.0,
        "attempts": 3,
        "concurrency": 20,
    }
    return WebRetrieval(**(defaults | keys))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SEARCH_KEY", "k123")


def web(reply: Any, *, delay_s: float = 0.0) -> Callable[[Any], Any]:
    """All providers at one address, told apart by their documented paths and headers."""

    def rows(query: str, url: str, text: str, count: int) -> list[dict[str, Any]]:
        return [{"title": f"T{i}", url: f"http://site{i}.org/{query}", text: f"{query} {i}"} for i in range(count)]

    def answer(request: Any) -> Any:
        if request.path.startswith("/read/"):
            page = {"url": request.path[6:], "title": "Page", "content": "# Page\nText", "usage": {"tokens": 9}}
            return reply({"code": 200, "status": 20000, "data": page}, delay_s=delay_s)
        if request.headers.get("x-api-key") == "k123":
            body = request.json
            organic = rows(body["q"], "link", "snippet", body["num"])
            return reply({"searchParameters": body, "organic": organic, "credits": 1}, delay_s=delay_s)
        if request.headers.get("authorization") == "Bearer k123":
            body = request.json
            return reply({"results": rows(body["query"], "url", "content", body["max_results"])}, delay_s=delay_s)
        if request.headers.get("x-subscription-token") == "k123":
            found = rows(request.params["q"], "url", "description", int(request.params["count"]))
            return reply({"type": "search", "web": {"type": "search", "results": found}}, delay_s=delay_s)
        if request.params.get("format") == "json":
            return reply({"query": "q", "results": rows(request.params["q"], "url", "content", 10)}, delay_s=delay_s)
        return reply({"message": "Unauthorized."}, 401)

    return answer


@pytest.mark.parametrize("engine", ENGINES)
def test_request_and_answer_of_each_engine(fake_server: Callable[..., Any], reply: Any, engine: str) -> None:
    server = fake_server(web(reply))
    found = asyncio.run(WebRetriever(settings(engine, server.url)).search(["hello", "!?"], 2))
    assert found == [
        [Hit(f"http://site{i}.org/hello", f"T{i}", f"hello {i}", 0.0, f"http://site{i}.org/hello") for i in range(2)],
        [],
    ]
    assert len(server.requests) == 1
    expected = {
        "serper": ("POST", "/search"),
        "tavily": ("POST", "/search"),
        "brave": ("GET", "/res/v1/web/search"),
        "searxng": ("GET", "/search"),
    }
    assert (server.requests[0].method, server.requests[0].path) == expected[engine]


@pytest.mark.parametrize("engine", ENGINES)
def test_16_identical_queries_in_flight_cost_one_call(fake_server: Callable[..., Any], reply: Any, engine: str) -> None:
    server = fake_server(web(reply, delay_s=0.1))
    retriever = WebRetriever(settings(engine, server.url))

    async def play() -> list[list[list[Hit]]]:
        group = ["Hello  world"] * 8 + ["hello world"] * 8  # case and spaces do not matter
        return list(await asyncio.gather(*(retriever.search([query], 3) for query in group)))

    found = asyncio.run(play())
    assert len(server.requests) == 1
    assert all(len(hits[0]) == 3 for hits in found)
    assert retriever.costs() == {"calls": 1.0, "cost_usd": pytest.approx(0.001), "cached": 0.0, "joined": 15.0}


@pytest.mark.parametrize("engine", ENGINES)
def test_401_is_final_and_429_5xx_are_tried_again(fake_server: Callable[..., Any], reply: Any, engine: str) -> None:
    server = fake_server(web(reply))
    server.script = [reply({}, 429, {"Retry-After": "0.2"}), reply({}, 502)]
    retriever = WebRetriever(settings(engine, server.url))
    start = time.monotonic()
    assert asyncio.run(retriever.search(["a"], 1))[0]
    assert time.monotonic() - start >= 0.2
    assert retriever.costs()["calls"] == 3  # tries count against the budget
    assert retriever.costs()["cost_usd"] == pytest.approx(0.001)  # only the success is paid

    server.script = [reply({"message": "Unauthorized."}, 401)]
    with pytest.raises(AccessDeniedError, match=engine):
        asyncio.run(WebRetriever(settings(engine, server.url)).search(["b"], 1))
    assert len(server.requests) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_timeouts_and_malformed_answers_are_search_errors(
    fake_server: Callable[..., Any], reply: Any, engine: str, tmp_path: Path
) -> None:
    slow = fake_server(web(reply))  # one of its own: on a busy machine it reads the abandoned request late
    slow.script = [reply({}, delay_s=1.0)]
    with pytest.raises(NoAnswerError, match="no answer in time"):
        asyncio.run(WebRetriever(settings(engine, slow.url, timeout_s=0.1, attempts=1)).search(["a"], 1))
    server = fake_server(web(reply))
    bodies = [b"<html>", b"[1]", b'{"results": [{}], "organic": [{}], "web": {"results": [{}]}}']
    for body in bodies:
        server.script = [reply(body)]
        recorder = settings(engine, server.url, mode="record", cache=str(tmp_path / "c.sqlite"))
        with pytest.raises(NoAnswerError, match=r"unknown form|not JSON"):
            asyncio.run(WebRetriever(recorder).search(["a"], 1))
    # none of them was kept: the next call asks again and succeeds
    assert asyncio.run(WebRetriever(recorder).search(["a"], 1))[0]


def test_record_then_replay_without_network_or_key(
    fake_server: Callable[..., Any], reply: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake_server(web(reply))
    cache = str(tmp_path / "answers.sqlite")

    async def ask(retriever: WebRetriever, *queries: str) -> list[list[Hit]]:
        found = await retriever.search(queries, 2)
        await retriever.close()
        return found

    recorder = WebRetriever(settings("serper", server.url, mode="record", cache=cache))
    recorded = asyncio.run(ask(recorder, "one", "two", "ONE"))
    assert len(server.requests) == 2  # "ONE" is "one"
    again = WebRetriever(settings("serper", server.url, mode="record", cache=cache))
    assert asyncio.run(ask(again, "one", "two", "ONE")) == recorded
    assert len(server.requests) == 2
    assert again.costs()["cached"] == 3

    server.close()
    monkeypatch.delenv("TEST_SEARCH_KEY")
    replay = WebRetriever(settings("serper", server.url, mode="replay", cache=cache))
    assert replay.fingerprint()["recorded_answers"] == 2
    assert asyncio.run(ask(replay, "one", "two", "one")) == recorded
    with pytest.raises(NoAnswerError, match="'three' is not in the recording"):
        asyncio.run(WebRetriever(settings("serper", server.url, mode="replay", cache=cache)).search(["three"], 2))


def test_replay_without_a_recording_stops(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mode=record"):
        WebRetriever(settings("serper", "http://127.0.0.1:9", mode="replay", cache=str(tmp_path / "none.sqlite")))


def test_a_file_that_is_no_cache_stops(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"this is not a database, it is a text that is long enough" * 20)
    with pytest.raises(DataError, match="not a search cache"):
        WebRetriever(settings("serper", "http://127.0.0.1:9", mode="replay", cache=str(path)))


def test_a_spent_budget_ends_the_episode_unscored(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(web(reply))
    retriever = WebRetriever(settings("serper", server.url, max_calls=2))

    async def play() -> None:
        await retriever.search(["a"], 1)
        await retriever.search(["b"], 1)
        await retriever.search(["c"], 1)

    with pytest.raises(BudgetSpentError, match="all 2 search calls"):
        asyncio.run(play())
    assert len(server.requests) == 2


def test_calls_are_spaced_by_the_rate(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(web(reply))
    retriever = WebRetriever(settings("brave", server.url, requests_per_second=40.0))

    async def play() -> float:
        start = time.monotonic()
        await retriever.search([f"q{i}" for i in range(9)], 1)
        return time.monotonic() - start

    assert asyncio.run(play()) >= 0.2  # 8 gaps of 25 ms


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_SEARCH_KEY")
    with pytest.raises(MissingKeyError, match="TEST_SEARCH_KEY"):
        WebRetriever(settings("serper", "http://127.0.0.1:9"))


def test_reader_opens_pages_and_blocked_hosts_are_closed(fake_server: Callable[..., Any], reply: Any) -> None:
    server = fake_server(web(reply))
    retriever = WebRetriever(
        settings(
            "serper",
            server.url,
            reader="jina",
            reader_url=f"{server.url}/read",
            blocked_domains=["site1.org", "bad.org"],
        )
    )

    async def play() -> tuple[list[list[Hit]], list[Hit | None]]:
        found = await retriever.search(["x"], 3)
        hidden = ["https://www.bad.org/x", "https://bad.org./x", f"{server.url}/read/https://bad.org/x"]
        ids = ["http://site0.org/x", *hidden, "17", "file:///etc/passwd"]
        return found, [await retriever.open(id_) for id_ in ids]

    found, pages = asyncio.run(play())
    assert [hit.url for hit in found[0]] == ["http://site0.org/x", "http://site2.org/x"]
    assert pages[0] is not None
    assert (pages[0].title, pages[0].text) == ("Page", "# Page\nText")
    assert pages[1:] == [None] * 5
    assert len(server.requests) == 2


def test_addresses_that_differ_in_case_are_other_pages(
    fake_server: Callable[..., Any], reply: Any, tmp_path: Path
) -> None:
    server = fake_server(web(reply))
    keys = {"reader": "jina", "reader_url": f"{server.url}/read", "mode": "record", "cache": str(tmp_path / "cache")}
    retriever = WebRetriever(settings("serper", server.url, **keys))

    async def play() -> list[str]:
        pages = [await retriever.open(f"http://site0.org/{name}") for name in ("US", "Us", "US")]
        await retriever.search(["What  is it"], 1)
        await retriever.search(["what is it"], 1)
        return [page.url for page in pages if page]

    assert asyncio.run(play()) == ["http://site0.org/US", "http://site0.org/Us", "http://site0.org/US"]
    assert len(server.requests) == 3


def test_a_page_that_an_older_empg_recorded_is_replayed(
    fake_server: Callable[..., Any], reply: Any, tmp_path: Path
) -> None:
    """Its key had no capitals."""
    server = fake_server(web(reply))
    keys = {"reader": "jina", "reader_url": f"{server.url}/read", "cache": str(tmp_path / "cache")}
    recording = WebRetriever(settings("serper", server.url, mode="record", **keys))
    object.__setattr__(recording.pages._provider, "takes_addresses", False)  # type: ignore[union-attr]
    assert asyncio.run(recording.open("http://site0.org/US")) is not None
    replay = WebRetriever(settings("serper", server.url, mode="replay", **keys))
    page = asyncio.run(replay.open("http://site0.org/US"))
    assert page is not None and page.url == "http://site0.org/US"


def test_settings_refuse_what_is_not_read() -> None:
    with pytest.raises(ValidationError, match="cache is not read when mode=live"):
        settings("serper", "http://x", cache="c.sqlite")
    with pytest.raises(ValidationError, match="cache must name a file"):
        settings("serper", "http://x", mode="record")
    with pytest.raises(ValidationError, match="base_url must be given"):
        settings("searxng", "", base_url=None)
    with pytest.raises(ValidationError, match="reader must be given"):
        settings("serper", "http://x", reader_url="http://y")
