"""Our `/retrieve` server on a real socket, asked by our own client and by hand; and the dense engine end to end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.index import build_index
from empg_cli.benchmarks.deepsearch.official.corpora import read_corpus
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Retriever, Runner
from empg_cli.benchmarks.deepsearch.retrieval.search_r1 import HttpRetriever
from empg_cli.benchmarks.deepsearch.search import open_index
from empg_cli.benchmarks.deepsearch.serve import RetrieveApp, refuse_without_uvicorn
from empg_cli.config.deepsearch import HttpRetrieval
from empg_cli.services.errors import NoAnswerError

uvicorn = pytest.importorskip("uvicorn", reason="serving needs the extra: empg-cli[serve]")

PASSAGES = [
    Passage("a", "Paris", "Paris is the capital of France."),
    Passage("b", "Paris", "It lies on the Seine."),
    Passage("c", "Rome", "Rome is the capital of Italy.", "http://rome.it"),
]


@contextmanager
def running(retriever: Retriever) -> Iterator[str]:
    """The server in a thread; its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(RetrieveApp(retriever), log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served") / "index"
    build_index(PASSAGES, folder)
    with running(open_index(folder)) as url:
        yield url


def client(url: str, dialect: str) -> HttpRetriever:
    return HttpRetriever(
        HttpRetrieval.model_validate(
            {"engine": "http", "urls": [url], "dialect": dialect, "timeout_s": 20.0, "attempts": 2, "concurrency": 4}
        )
    )


@pytest.mark.parametrize("dialect", ["queries", "query"])
def test_round_trip_in_both_dialects(address: str, dialect: str) -> None:
    async def play() -> tuple[list[list[Hit]], Hit | None, Hit | None]:
        remote = client(address, dialect)
        await remote.check()
        found = await remote.search(["capital of France", "Rome"], 2)
        return found, await remote.open("b"), await remote.open("z")

    found, page, nothing = asyncio.run(play())
    assert found[0][0].id == "a"
    assert found[0][0].score > 0
    assert (found[1][0].title, found[1][0].text) == ("Rome", "Rome is the capital of Italy.")
    assert found[1][0].url == "http://rome.it"
    assert page is not None
    assert page.text == "Paris is the capital of France.\nIt lies on the Seine."  # the whole page of the title
    assert nothing is None


def test_search_r1_rows(address: str) -> None:
    bare = httpx.post(f"{address}/retrieve", json={"queries": ["Rome"], "topk": 1}).json()
    assert bare == {
        "result": [[{"id": "c", "contents": '"Rome"\nRome is the capital of Italy.', "url": "http://rome.it"}]]
    }
    scored = httpx.post(f"{address}/retrieve", json={"query": "Rome", "topk": 1, "return_scores": True}).json()
    assert scored["result"][0][0]["document"] == bare["result"][0][0]
    assert scored["result"][0][0]["score"] > 0
    default = httpx.post(f"{address}/retrieve", json={"queries": ["capital", "", ")AND("], "topk": None}).json()
    assert [len(row) for row in default["result"]] == [2, 0, 0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "queries"),
        (b'{"queries": "Rome"}', "queries"),
        (b'{"queries": [1]}', "queries"),
        (b'{"query": null}', "queries"),
        (b'{"queries": ["Rome"], "topk": 0.5}', "topk"),
        (b'{"queries": ["Rome"], "topk": -1}', "topk"),
        (b'{"queries": ["Rome"], "topk": 1000000}', "topk"),
        (b"[]", "object"),
        (b"\xff\xfe", "JSON"),
        (b"", "JSON"),
    ],
)
def test_bad_requests_are_422(address: str, body: bytes, message: str) -> None:
    answer = httpx.post(f"{address}/retrieve", content=body)
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_other_paths_and_health(address: str) -> None:
    assert httpx.get(f"{address}/retrieve").status_code == 404
    assert httpx.get(f"{address}/").status_code == 404
    assert httpx.post(f"{address}/access", json={"urls": "a"}).status_code == 422
    health = httpx.get(f"{address}/health").json()
    assert health["status"] == "ok"
    assert health["passages"] == 3


def test_the_client_knows_what_is_indexed_and_refuses_a_mixture(address: str, tmp_path: Path) -> None:
    one = client(address, "queries")
    asyncio.run(one.check())
    assert one.fingerprint()["index"]["passages"] == 3
    build_index(PASSAGES[:2], tmp_path / "other")
    with running(open_index(tmp_path / "other")) as other:
        mixed = HttpRetriever(
            HttpRetrieval.model_validate(
                {
                    "engine": "http",
                    "urls": [address, other],
                    "dialect": "queries",
                    "timeout_s": 20.0,
                    "attempts": 2,
                    "concurrency": 4,
                }
            )
        )
        with pytest.raises(DataError, match="different corpora"):
            asyncio.run(mixed.check())


def test_a_body_without_end_is_refused(address: str) -> None:
    answer = httpx.post(f"{address}/retrieve", content=b" " * (17 * 2**20), timeout=60)
    assert answer.status_code == 413
    assert "larger" in answer.json()["detail"]


class Broken:
    name = "broken"
    is_local = True

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        raise NoAnswerError("the disk is gone")

    async def open(self, id_: str) -> Hit | None:
        raise NoAnswerError("the disk is gone")

    async def check(self) -> None: ...

    def fingerprint(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...


def test_an_engine_that_fails_is_503() -> None:
    with running(Broken()) as url:
        answer = httpx.post(f"{url}/retrieve", json={"queries": ["x"]})
        assert answer.status_code == 503
        assert "the disk is gone" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"queries": ["x"] * 10_001, "topk": 1}, '"queries" may be 10,000 in one request, got 10,001'),
        ({"queries": ["x"] * 101, "topk": 1000}, '"queries" times "topk" may be 100,000 in one request, got 101,000'),
    ],
)
def test_requests_that_ask_for_too_much_are_413(address: str, body: Any, message: str) -> None:
    answer = httpx.post(f"{address}/retrieve", json=body)
    assert answer.status_code == 413
    assert message in answer.json()["detail"]
    assert httpx.post(f"{address}/access", json={"urls": ["a"] * 10_001}).status_code == 413


def test_deep_json_is_422_and_half_a_character_is_none(address: str) -> None:
    for body in (b"[" * 100_000, b'{"queries": ' + b"[" * 500 + b"]" * 500 + b"}"):
        answer = httpx.post(f"{address}/retrieve", content=body)
        assert answer.status_code == 422
        assert "deep" in answer.json()["detail"]
    assert httpx.post(f"{address}/retrieve", content=b'{"query": "Rome \\ud800"}').json()["result"][0]
    assert httpx.post(f"{address}/access", content=b'{"urls": ["\\ud800"]}').json() == {"result": [None]}


def test_a_websocket_is_refused(address: str) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = httpx.get(f"{address}/retrieve", headers=upgrade | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert 400 <= answer.status_code < 500

    async def knock() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await RetrieveApp(Broken())({"type": "websocket"}, receive, send)
        return sent

    assert asyncio.run(knock()) == [{"type": "websocket.close"}]


class Slow(Broken):
    """Takes 5 ms a query."""

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        time.sleep(0.005 * len(queries))
        return [[Hit(query, query, "")] for query in queries]


def test_a_large_request_leaves_room_for_small_ones() -> None:
    queries = [str(number) for number in range(600)]
    with running(Slow()) as url:
        large: list[Any] = []
        worker = threading.Thread(
            target=lambda: large.append(httpx.post(f"{url}/retrieve", json={"queries": queries}, timeout=60).json())
        )
        worker.start()
        time.sleep(0.2)
        for _ in range(3):
            assert httpx.post(f"{url}/retrieve", json={"query": "x"}, timeout=60).json()["result"][0][0]["id"] == "x"
            assert httpx.get(f"{url}/health", timeout=60).status_code == 200
        assert not large, "the small ones came after it"
        worker.join(60)
    assert [hits[0]["id"] for hits in large[0]["result"]] == queries


def test_250_queries_in_one_request(address: str) -> None:
    answer = httpx.post(f"{address}/retrieve", json={"queries": ["capital"] * 250, "topk": 2}, timeout=30).json()
    assert [len(row) for row in answer["result"]] == [2] * 250


def test_2wiki_questions_through_retrieve(official_data: Path, tmp_path: Path) -> None:
    corpus = official_data / "deepsearch" / "2wikimultihopqa_corpus.json.gz"
    build_index(read_corpus(corpus), tmp_path / "index")
    with running(open_index(tmp_path / "index")) as url:
        found = asyncio.run(client(url, "queries").search(["Teutberga queen of Lotharingia", "Lothair II"], 3))
    assert found[0][0].title == "Teutberga"
    assert all(len(hits) == 3 for hits in found)


@pytest.fixture
def tiny_encoder(tmp_path: Path) -> Path:
    """A random BERT of two layers over words: real files, the real loading code, no download."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for passage in PASSAGES for word in f"{passage.title} {passage.text}".split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "encoder"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_dense_engine_finds_a_passage_by_its_own_text(tiny_encoder: Path, tmp_path: Path, pooling: Any) -> None:
    pytest.importorskip("faiss", reason="the dense engine needs the extra: empg-cli[dense]")
    from empg_cli.benchmarks.deepsearch.retrieval.dense import EncoderSpec

    spec = EncoderSpec(str(tiny_encoder), pooling)
    build_index(PASSAGES, tmp_path / "index", "dense", dense={"encoder": spec, "device": "cpu", "batch_size": 2})
    retriever = open_index(tmp_path / "index")
    queries = [f'"{passage.title}"\n{passage.text}' for passage in PASSAGES]
    found = Runner(is_local=True).run(retriever.search([*queries, "?!"], 2))
    assert [hits[0].id for hits in found[:3]] == ["a", "b", "c"]
    assert all(hits[0].score == pytest.approx(1.0, abs=1e-5) for hits in found[:3])  # cosine with itself
    assert found[3] == []
    assert retriever.fingerprint()["encoder"]["pooling"] == pooling


def test_missing_packages_name_the_install_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("bm25s", "faiss", "pyarrow", "uvicorn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    attempts: dict[str, Callable[[], object]] = {
        "bm25s": lambda: build_index(PASSAGES, tmp_path / "b", "bm25s"),
        "dense": lambda: build_index(PASSAGES, tmp_path / "d", "dense", dense={"encoder": None}),
        "parquet": lambda: list(read_corpus(tmp_path / "x.parquet")),
        "serve": refuse_without_uvicorn,
    }
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without)
    for extra, attempt in attempts.items():
        with pytest.raises(DataError, match=rf"pip install .*\[{extra}\]"):
            attempt()


def test_the_manifest_says_what_was_indexed(tmp_path: Path) -> None:
    build_index(PASSAGES, tmp_path / "one")
    build_index(PASSAGES[:2], tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "index.json").read_text()) for name in ("one", "two"))
    assert (one["engine"], one["passages"]) == ("tantivy", 3)
    assert one["digest"] != two["digest"]
