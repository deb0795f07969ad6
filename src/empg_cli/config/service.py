"""The settings that all services have in common."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, PositiveFloat, PositiveInt

from empg_cli.config.node import Node


def _address(text: str) -> str:
    """Checked, and not repeated in the message: it may hold what nobody is to see."""
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or any(character.isspace() for character in text):
        raise ValueError("must begin with http:// or https://, then a host, such as http://127.0.0.1:8000/v1")
    return text


Address = Annotated[str, AfterValidator(_address)]
"""Of a server. User, password and key are refused before (`config/secrets.py`)."""


class Remote(Node):
    """A service reached over HTTP."""

    timeout_s: PositiveFloat
    """Of one attempt as a whole, from the connection to the last byte."""
    attempts: PositiveInt
    """Tries of one call in all; waits grow from 0.5 s, or are what the server's Retry-After says, a minute at most."""
    concurrency: PositiveInt
    """Calls in flight."""
