"""A server on loopback whose every byte is ours: what it sends need not be HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

RESET = "reset"
"""What a handler yields to have the connection reset."""


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = bytes | Iterable[bytes | str]
"""All of it, or in parts; `RESET` instead of a part resets the connection. The connection ends with the answer."""


def http(body: Any, status: str = "200 OK", **headers: str) -> bytes:
    """A well-formed answer. body: bytes as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "Content-Length": str(len(data))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status}\r\n{lines}Connection: close\r\n\r\n".encode() + data


class Wire:
    """Answers each request with `handler`, in a thread of its own. `asked` holds what came."""

    def __init__(self, handler: Callable[[Asked], Answer], *, port: int = 0) -> None:
        self.handler = handler
        self.asked: list[Asked] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            asked = _read(connection)
            if asked is None:
                return
            self.asked.append(asked)
            answer = self.handler(asked)
            for part in (answer,) if isinstance(answer, bytes) else answer:
                if isinstance(part, str):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(part)


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    method, path, *_ = [*first.split(" "), ""]
    return Asked(method, path, headers, body)


def slowly(data: bytes, every_s: float) -> Iterator[bytes]:
    """A byte at a time."""
    for byte in data:
        yield bytes([byte])
        time.sleep(every_s)
