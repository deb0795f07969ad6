"""One request and its answer, with a bound on the time and on the bytes, before and after they are unpacked."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from empg_cli.services.errors import BadAnswerError

MAX_ANSWER_BYTES: Final = 16 * 2**20
"""Of an answer as it is sent, and of what it unpacks to."""
MAX_ERROR_BYTES: Final = 4096
"""As much is read of an answer that says an error."""
_GZIP: Final = zlib.MAX_WBITS | 16


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


async def receive(
    client: httpx.AsyncClient, method: str, url: str, *, timeout_s: float, request: Mapping[str, Any]
) -> Answer:
    """
    Args:
        client: one that asks for no other encoding than gzip.
        timeout_s: of the whole exchange: a server that sends a byte now and then is not waited for any longer.
        request: keyword arguments of `httpx.AsyncClient.stream`.

    Raises:
        TimeoutError, OSError, httpx.TransportError: there is no answer, or a part of one.
        BadAnswerError: it is too long, or not packed as it says.
    """
    async with asyncio.timeout(timeout_s), client.stream(method, url, **request) as response:
        if not response.is_success:
            return Answer(response.status_code, response.headers, await _beginning(response))
        packed = bytearray()
        async for part in response.aiter_raw():
            packed += part
            if len(packed) > MAX_ANSWER_BYTES:
                raise BadAnswerError(f"the answer is longer than {MAX_ANSWER_BYTES:,} bytes")
        return Answer(response.status_code, response.headers, _unpacked(bytes(packed), _encoding(response)))


async def _beginning(response: httpx.Response) -> bytes:
    """Of the text of an error; nothing where it cannot be unpacked."""
    packed = bytearray()
    async for part in response.aiter_raw():
        packed += part
        if len(packed) >= MAX_ERROR_BYTES:
            break
    encoding = _encoding(response)
    if encoding == "identity":
        return bytes(packed[:MAX_ERROR_BYTES])
    try:
        return zlib.decompressobj(_GZIP).decompress(packed, MAX_ERROR_BYTES) if "gzip" in encoding else b""
    except zlib.error:
        return b""


def _encoding(response: httpx.Response) -> str:
    return response.headers.get("content-encoding", "identity").strip().lower() or "identity"


def _unpacked(packed: bytes, encoding: str) -> bytes:
    match encoding:
        case "identity":
            return packed
        case "gzip" | "x-gzip":
            return _from_gzip(packed)
        case _:
            raise BadAnswerError(f"the answer is packed as {encoding[:40]!r}, which was not asked for")


def _from_gzip(packed: bytes) -> bytes:
    """All members of it; a bomb is left as soon as it exceeds the bound."""
    body = b""
    while packed:
        member = zlib.decompressobj(_GZIP)
        try:
            body += member.decompress(packed, MAX_ANSWER_BYTES + 1 - len(body))
        except zlib.error:
            raise BadAnswerError("the answer is not the gzip that it says it is") from None
        if len(body) > MAX_ANSWER_BYTES:
            raise BadAnswerError(f"the answer unpacks to more than {MAX_ANSWER_BYTES:,} bytes")
        if not member.eof:
            raise BadAnswerError("the answer ends in the middle of its gzip")
        packed = member.unused_data
    return body
