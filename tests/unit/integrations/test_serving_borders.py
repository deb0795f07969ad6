"""Who and what the server refuses before it samples: pages, requests that never come, and what strangers are told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.agents.codec import ChatCodec
from empg_cli.integrations.serving import app as app_module
from empg_cli.integrations.serving.app import ServingApp
from empg_cli.integrations.serving.guard import OwnMachineOnly
from empg_cli.services.listening import bound, is_loopback
from tests.support.chat import chat_tokenizer

uvicorn = pytest.importorskip("uvicorn", reason="serving needs the extra: empg-cli[serve]")

from empg_cli.integrations.serving import protocol  # noqa: E402


def asked(app: Any, path: str, body: bytes | None = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    return asyncio.run(asking(app, path, body, **headers))


async def asking(app: Any, path: str, body: bytes | None = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer.

    Args:
        body: None = it never comes.
    """
    sent: list[dict[str, Any]] = []
    incoming = [] if body is None else [{"type": "http.request", "body": body}]

    async def receive() -> dict[str, Any]:
        if not incoming:
            await asyncio.sleep(60)
        return incoming.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    method = "POST" if path.startswith("/v1") else "GET"
    await app({"type": "http", "method": method, "path": path, "headers": told}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def serving_app(**more: Any) -> ServingApp:
    def broken(text: str, **_: Any) -> None:
        raise RuntimeError("no room at /home/alice")

    tokenizer = SimpleNamespace(backend_tokenizer=SimpleNamespace(encode=broken))
    answerer: Any = SimpleNamespace(tokenizer=tokenizer, most_tokens=8)
    return ServingApp(answerer, name="mine", source="here", default_tokens=4, **more)


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST", "127.0.0.2:8000"])
def test_the_machines_own_names_are_served(host: str) -> None:
    app = OwnMachineOnly(serving_app(), "127.0.0.2")
    assert asked(app, "/health", host=host) == (200, {"status": "ok"})
    assert asked(app, "/health", host=host, origin="http://localhost:3000")[0] == 200


@pytest.mark.parametrize(
    ("host", "is_own"), [("127.1", True), ("localhost", True), ("2130706433", True), ("0.0.0.0", False), ("0", False)]
)
def test_whether_an_address_is_the_machines_own_does_not_depend_on_how_it_is_spelt(host: str, is_own: bool) -> None:
    with bound(host, 0, hint="") as listening:
        assert is_loopback(listening) is is_own


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"host": "evil.example:8000"}, "the Host evil.example:8000 is not this machine's"),
        ({"host": "localhost.evil.example"}, "is not this machine's"),
        ({"host": "[::1"}, "is not this machine's"),
        ({"host": "localhost", "origin": "https://evil.example"}, "a page of https://evil.example may not use"),
        ({"host": "localhost", "origin": "null"}, "a page of null may not use"),
    ],
)
def test_pages_from_elsewhere_are_not(headers: dict[str, str], said: str) -> None:
    status, body = asked(OwnMachineOnly(serving_app(), "127.0.0.1"), "/health", **headers)
    assert status == 403 and said in body["error"]["message"]


def test_strangers_are_not_told_what_an_error_says() -> None:
    body = json.dumps({"model": "mine", "prompt": "x"}).encode()
    assert asked(serving_app(), "/v1/completions", body)[1]["error"]["message"].endswith("no room at /home/alice")
    status, found = asked(serving_app(is_open=True), "/v1/completions", body)
    assert (status, found["error"]["message"]) == (500, "the engine failed")


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_temperature_at_which_logits_overflow_is_refused(path: str) -> None:
    body = json.dumps({"model": "mine", "prompt": "x", "temperature": 1e-39}).encode()
    if path == "chat/completions":
        body = body.replace(b'"prompt": "x"', b'"messages": [{"role": "user", "content": "x"}]')
    status, found = asked(serving_app(), f"/v1/{path}", body)
    assert (status, found["error"]["param"]) == (400, "temperature")
    assert found["error"]["message"].startswith("temperature: must not be between 0 and 1e-05")


def test_a_number_that_is_none_is_an_error_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has no NaN: clients could not read the answer."""

    async def broken(self: ServingApp, request: Any) -> dict[str, Any]:
        return {"logprobs": [float("nan")]}

    monkeypatch.setattr(ServingApp, "_completions", broken)
    body = json.dumps({"model": "mine", "prompt": "x"}).encode()
    status, found = asked(serving_app(), "/v1/completions", body)
    assert status == 500 and found["error"]["type"] == "server_error"


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_others_are_answered_while_a_prompt_is_encoded(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a text nor a conversation is encoded by the thread that answers."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(text: Any, **_: Any) -> None:
        begun.set()
        assert may_end.wait(5), "nobody was answered in the meantime"
        raise RuntimeError("encoded")

    app = serving_app()
    codec = ChatCodec(chat_tokenizer())
    monkeypatch.setattr(codec, "conversation", slow)
    app._answerer.codec = codec
    app._answerer.tokenizer.backend_tokenizer.encode = slow
    asks = {"prompt": "x"} if path == "completions" else {"messages": [{"role": "user", "content": "x"}]}
    body = json.dumps({"model": "mine", **asks}).encode()

    async def both() -> tuple[tuple[int, Any], tuple[int, Any]]:
        large = asyncio.create_task(asking(app, f"/v1/{path}", body))
        await asyncio.to_thread(begun.wait, 10)
        health = await asking(app, "/health")
        may_end.set()
        return health, await large

    health, large = asyncio.run(both())
    assert health == (200, {"status": "ok"}) and large[1]["error"]["message"] == "the engine failed: encoded"


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "BODY_S", 0.05)
    status, found = asked(serving_app(), "/v1/completions", None)
    assert status == 408 and "has not come within 0.05 s" in found["error"]["message"]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server whose requests must begin within 0.3 s."""
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.6)  # an answer may take longer than that
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(hello, http=protocol.BoundedHead, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)


WHOLE = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize("before", [b"", WHOLE])
@pytest.mark.parametrize("part", [b"", b"GET / HTTP/1.1\r\nhost: lo"])
def test_a_head_that_does_not_come_loses_its_connection(port: int, before: bytes, part: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        if before:
            client.sendall(before)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(part)
        begun, answer = time.monotonic(), b""
        while some := client.recv(1000):
            answer += some
        assert time.monotonic() - begun < 9
    if part or not before:  # else the connection was idle, which uvicorn ends by itself
        assert b"HTTP/1.1 408 " in answer
