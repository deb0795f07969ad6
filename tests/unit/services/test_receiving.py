"""One exchange with a server that sends what it likes: it ends in time and within its bounds, maybe with an answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from empg_cli.services import http as service
from empg_cli.services import receiving
from empg_cli.services.errors import AccessDeniedError, BadAnswerError, NoAnswerError
from empg_cli.services.http import Service, retry_after
from scripts.faults.wire import RESET, Answer, Wire, http, slowly

DATA = json.dumps({"text": "ä" * 100}).encode()


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(receiving, "MAX_ANSWER_BYTES", 4000)


def ask(answer: Answer, *, attempts: int = 1, timeout_s: float = 5.0, path: str = "/") -> Any:
    async def call(url: str) -> Any:
        asked = Service("the oracle", timeout_s=timeout_s, attempts=attempts, concurrency=1)
        try:
            return await asked.call("POST", f"{url}{path}", json={})
        finally:
            await asked.close()

    with Wire(lambda asked: answer) as wire:
        return asyncio.run(call(wire.url))


@pytest.mark.parametrize("size", [50, 10_000])
def test_gzip_is_unpacked_in_members_too(size: int) -> None:
    packed = b"".join(gzip.compress(DATA[start : start + size]) for start in range(0, len(DATA), size))
    assert ask(http(packed, Content_Encoding="gzip")) == json.loads(DATA)
    assert ask(http(packed, Content_Encoding=" X-GZIP ")) == json.loads(DATA)
    assert ask(http(DATA, Content_Encoding="identity")) == json.loads(DATA)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(DATA, Content_Encoding="gzip"), "not the gzip that it says"),
        (http(gzip.compress(DATA)[:-9], Content_Encoding="gzip"), "in the middle of its gzip"),
        (http(gzip.compress(DATA) + b"junk", Content_Encoding="gzip"), "not the gzip that it says"),
        (http(DATA, Content_Encoding="br"), "packed as 'br'"),
        (http(b" " * 4001), "longer than 4,000 bytes"),
        (http(gzip.compress(b" " * 4001), Content_Encoding="gzip"), "unpacks to more than 4,000 bytes"),
        (http(gzip.compress(b" " * 2001) * 2, Content_Encoding="gzip"), "unpacks to more than 4,000 bytes"),
        (http(b"<html>"), r"is not JSON: b'<html>'"),
        (http(b"", "204 No Content"), "is not JSON"),
        (http(b"[" * 65 + b"]" * 65), "more than 64 deep"),
        (http(b'{"a":' * 700), "JSON"),
        (http(b"", "302 Found", Location="/"), r"HTTP 302 \(it sends on to another address"),
        (http(b"no such thing\n\x1b[2J", "404 Not Found"), "HTTP 404 .no such thing \ufffd.2J"),
        (http(gzip.compress(b"why"), "404 Not Found", Content_Encoding="gzip"), r"HTTP 404 \(why\)"),
        (http(b"why", "404 Not Found", Content_Encoding="gzip"), "HTTP 404$"),
    ],
)
def test_what_is_no_answer_is_said_and_not_asked_for_again(answer: bytes, says: str) -> None:
    with pytest.raises(BadAnswerError, match=f"^the oracle: .*{says}"):
        ask(answer, attempts=3)


def test_exactly_the_bound_is_an_answer() -> None:
    assert ask(http(b" " * 3999 + b"1")) == 1
    assert ask(http(gzip.compress(b" " * 3999 + b"1"), Content_Encoding="gzip")) == 1
    assert ask(http(b"[" * 64 + b"]" * 64)) is not None


@pytest.mark.parametrize(
    "answer",
    [[http(DATA, Content_Length="999"), RESET], http(DATA, Content_Length="999"), b"", b"noise\r\n\r\n", [RESET]],
)
def test_what_broke_on_the_way_is_asked_for_again(answer: Answer) -> None:
    with pytest.raises(NoAnswerError, match="tried 3 times") as raised:
        ask(answer, attempts=3)
    assert not isinstance(raised.value, BadAnswerError)


def test_a_byte_now_and_then_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"no answer in time \(0.3 s\), tried once"):
        ask(slowly(http(DATA), 0.05), timeout_s=0.3)
    assert time.monotonic() - began < 2


def test_a_body_without_end_is_given_up_at_its_bound() -> None:
    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"1," * 100

    with pytest.raises(BadAnswerError, match="longer than"):
        ask(endless())

    def endless_error() -> Iterator[bytes]:
        yield b"HTTP/1.1 403 Forbidden\r\n\r\n"
        while True:
            yield b"no " * 100

    with pytest.raises(AccessDeniedError, match=r"HTTP 403 \(no no"):
        ask(endless_error())


@pytest.mark.parametrize("path", ["/\x00", ":99999999/", "/" + "x" * 70_000, "/\ud800"])
def test_what_cannot_be_sent_is_no_crash(path: str) -> None:
    with pytest.raises(NoAnswerError):
        ask(http(DATA), path=path)


@pytest.mark.parametrize(
    ("told", "wait"),
    [
        ("0.5", 0.5),
        ("99", 99.0),
        ("999999999999", 999999999999.0),
        ("²", None),
        ("nan", None),
        ("inf", None),
        ("-5", None),
        ("1e3", None),
        ("9" * 400, None),
        ("", None),
        ("Fri, 99 Foo 99999 99:99:99", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after_is_a_wait_or_nothing(told: str, wait: float | None) -> None:
    assert retry_after({"retry-after": told}) == wait
