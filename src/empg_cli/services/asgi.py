"""What our own servers share: plain ASGI, a bounded JSON body in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from empg_cli.services.parsing import NotJsonError, parse_json

MAX_BODY_BYTES: Final = 8 * 2**20

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BadRequestError(Exception):
    """The request has not the form of the dialect, or asks for too much."""

    def __init__(self, reason: str, status: int = 422) -> None:
        super().__init__(reason)
        self.status = status


async def json_body(receive: Receive) -> dict[str, Any]:
    """
    Raises:
        BadRequestError: it is too large, or no JSON object.
    """
    body = bytearray()
    size, more = 0, True
    while more and size <= 16 * MAX_BODY_BYTES:
        message = await receive()
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= MAX_BODY_BYTES:
            body += part  # the rest is read all the same: who still sends does not hear that it is too much
    if size > MAX_BODY_BYTES:
        raise BadRequestError(f"the body is larger than {MAX_BODY_BYTES:,} bytes", 413)
    try:
        parsed = parse_json(bytes(body))
    except NotJsonError as error:
        raise BadRequestError(f"the body is {error}") from None
    if not isinstance(parsed, dict):
        raise BadRequestError("the body is not a JSON object")
    return parsed


def encoded(answer: Any) -> bytes:
    """
    Raises:
        ValueError: a number in it is none, which JSON cannot say.
    """
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace")  # a text may hold half a character


async def send_json(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
