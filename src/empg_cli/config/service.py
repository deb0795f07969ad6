"""The settings that all services have in common."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from empg_cli.config.node import Node


class Remote(Node):
    """A service reached over HTTP."""

    timeout_s: PositiveFloat
    """Of one attempt as a whole, from the connection to the last byte."""
    attempts: PositiveInt
    """Tries of one call in all; waits grow from 0.5 s, or are what the server's Retry-After says, a minute at most."""
    concurrency: PositiveInt
    """Calls in flight."""
