"""On an address of the machine itself, web pages are not served: they come through their reader's browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from empg_cli.integrations.serving.requests import RequestError
from empg_cli.services.asgi import Receive, Send, encoded, send_json

App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]
OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class OwnMachineOnly:
    """Refuses a name of a page's own that is made to lead here (DNS rebinding), and requests that a browser says come
    from a page elsewhere."""

    def __init__(self, app: App, *hosts: str) -> None:
        """
        Args:
            hosts: names of where it listens.
        """
        self._app, self._names = app, OWN_NAMES | {host.lower() for host in hosts}

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (fault := self._fault(dict(scope["headers"]))) is None:
            await self._app(scope, receive, send)
        else:
            await send_json(send, 403, encoded(RequestError(fault, status=403).as_dict()))

    def _fault(self, headers: Mapping[bytes, bytes]) -> str | None:
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        if host and not self._is_own(f"//{host}"):
            return f"the Host {host} is not this machine's: speak to localhost, or serve with host=0.0.0.0"
        if origin and not self._is_own(origin):
            return f"a page of {origin} may not use this server: serve with host=0.0.0.0 if it should"
        return None

    def _is_own(self, address: str) -> bool:
        try:
            return urlsplit(address).hostname in self._names
        except ValueError:
            return False
