"""A scripted HTTP server for the adapters of remote services."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from empg_cli.services import http as service
from tests.support.server import FakeServer, Handler, Reply


@pytest.fixture
def fake_server() -> Iterator[Callable[[Handler], FakeServer]]:
    servers: list[FakeServer] = []

    def start(handler: Handler) -> FakeServer:
        servers.append(FakeServer(handler))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait 10 ms, not 0.5 s; `Retry-After` is kept."""
    monkeypatch.setattr(service, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def reply() -> type[Reply]:
    return Reply
