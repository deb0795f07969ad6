"""The HTTP side of the fake vLLM server: connections, requests, and answers that break off."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support import token_server_protocol as protocol
from tests.support.token_server_protocol import Refused


class Broken(Exception):  # noqa: N818 (what the client sees)
    """The connection ends in the middle of an answer."""


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    connection: socket.socket

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise protocol.invalid("json_invalid", "body", "JSON decode error", "<bytes>") from None

    def field(self, name: str, kind: type, *, default: Any = ...) -> Any:
        body = self.json() if self.body else {}
        if not isinstance(body, dict) or (name not in body and default is ...):
            raise protocol.invalid("missing", f"body.{name}", "Field required", None)
        value = body.get(name, default)
        if value is not default and not isinstance(value, kind):
            word, long = ("string", "string") if kind is str else ("dict", "dictionary")
            raise protocol.invalid(f"{word}_type", f"body.{name}", f"Input should be a valid {long}", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        return self.query.get(name, [str(default)])[-1].lower() in ("true", "1", "yes", "on")

    @property
    def aborts(self) -> bool:
        mode = self.query.get("mode", ["abort"])[-1]
        if mode not in ("abort", "keep"):
            raise protocol.invalid("literal_error", "query.mode", "the fake knows 'abort' and 'keep'", mode)
        return mode == "abort"


def until_done(filled: Future[None], connection: socket.socket) -> None:
    """Until it is done; a client that has gone away cancels it, as at vLLM."""
    while not filled.done():
        wait([filled], timeout=0.05)  # does not see a cancelled one
        if select.select([connection], [], [], 0)[0] and not connection.recv(1, socket.MSG_PEEK):
            filled.cancel()
            raise ConnectionAbortedError


class Listener(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 256

    def __init__(self, address: tuple[str, int], answer: Callable[[Call], tuple[int, Any]]) -> None:
        """answer: gives status and body, bytes as they are, anything else as JSON."""
        super().__init__(address, Handler)
        self.answer = answer
        self.connections: set[socket.socket] = set()

    def stop(self) -> None:
        """Open connections break off."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Connections break in many tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True

    server: Listener

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, parts.path, parse_qs(parts.query), headers, body, self.connection)
        try:
            status, answer = self.server.answer(call)
        except Refused as refused:
            status, answer = refused.status, refused.body
        except (ConnectionAbortedError, CancelledError):
            self.close_connection = True
            return
        except Broken as broken:
            (data,) = broken.args
            self._send(200, data, say=len(data), write=len(data) // 2)
            self.close_connection = True
            return
        except Exception as error:  # as vLLM does
            status, answer = 500, protocol.error(500, repr(error), "InternalServerError").body
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self._send(status, data, say=len(data), write=len(data))

    do_GET = do_POST = _serve

    def _send(self, status: int, data: bytes, *, say: int, write: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(say))
        self.end_headers()
        self.wfile.write(data[:write])
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
