"""Where a server of ours listens, and how it runs until it is stopped (uvicorn, extra `serve`)."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from empg_cli.errors import UserError
from empg_cli.signals import Interrupted


def bound(host: str, port: int, *, hint: str) -> socket.socket:
    """Before what is served is read, so that a port that is taken is heard of at once.

    Args:
        port: 0 takes a free one.
        hint: how another place is given.

    Raises:
        UserError: nobody can listen there.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        if os.name != "nt" and sys.platform != "cygwin":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, UnicodeError) as error:  # the latter: a name that cannot be written in DNS
        said = error.strerror if isinstance(error, OSError) else "that is no name of a machine"
        raise UserError(f"cannot listen at {host}, port {port}: {said or error}\n  {hint}") from None
    return listening


def address(host: str, listening: socket.socket) -> str:
    """With the port that was found."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def is_loopback(listening: socket.socket) -> bool:
    """Only this machine reaches it. Asked of the socket, for `127.1` and names of /etc/hosts lead there too."""
    found = ipaddress.ip_address(listening.getsockname()[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def serve_until_stopped(app: Any, listening: socket.socket, say: Callable[[str], None], **settings: Any) -> None:
    """Run an ASGI application until a signal ends it.

    Args:
        settings: for uvicorn.Config.
    """
    import uvicorn

    config = uvicorn.Config(app, ws="none", log_level="warning", access_log=False, **settings)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except (KeyboardInterrupt, Interrupted):  # uvicorn raises the signal again when all is closed
        say("ended")
