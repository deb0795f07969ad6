"""A scripted HTTP server on loopback: clients talk to it over a real socket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Request:
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    body: Any = None
    """bytes as they are, anything else as JSON."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang_up: bool = False
    """Close the connection without an answer, as a server that dies."""
    cut_at: int | None = None
    """Close it after so many bytes of the body."""
    says_length: bool = True
    """Else the end of the connection is the end of the body."""


Handler = Callable[[Request], Reply]


class FakeServer:
    """Answers with `handler`, or first with the replies of `script`; `requests` holds all that came."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.script: list[Reply] = []
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class _Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                outer._serve(self)

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, http: BaseHTTPRequestHandler) -> None:
        body = http.rfile.read(int(http.headers.get("content-length") or 0))
        parts = urlsplit(http.path)
        headers = {name.lower(): value for name, value in http.headers.items()}
        request = Request(http.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            scripted = self.script.pop(0) if self.script else None
        reply = scripted or self.handler(request)
        time.sleep(reply.delay_s)
        with self._lock:
            self._at_once -= 1
        if reply.hang_up:
            http.close_connection = True
            return
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        try:
            http.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                http.send_header(name, value)
            if reply.says_length:
                http.send_header("Content-Length", str(len(data)))
            http.end_headers()
            http.wfile.write(data[: reply.cut_at])
            http.close_connection = http.close_connection or reply.cut_at is not None or not reply.says_length
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up waiting, as the timeout tests want
