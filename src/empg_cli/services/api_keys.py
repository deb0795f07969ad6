"""Keys of services come from environment variables, never from a configuration."""

from __future__ import annotations

import os

from empg_cli.services.errors import MissingKeyError


def api_key(variable: str | None, used_for: str) -> str | None:
    """The key in an environment variable; MissingKeyError when the variable is named but not set."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingKeyError(f"{used_for} needs its key in the environment variable {variable}, which is not set")
    return key
