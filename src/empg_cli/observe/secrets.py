"""Masks credentials before a config leaves the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

# `max_new_tokens` and `tokens_per_microbatch` are settings, not secrets: only a whole last word counts.
_SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(api_?key|(access|secret|private)_?key|token|secret|passwd|password|credentials?)$"
)
_URL_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST_SECRET = 8


def mask_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with `***` for values of secret-looking keys, logins inside URLs, and text that repeats a secret
    environment variable (WANDB_API_KEY, HF_TOKEN ...)."""
    secrets = [
        value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    ]

    def masked(value: Any) -> Any:
        match value:
            case str():
                for secret in secrets:
                    value = value.replace(secret, MASK)
                return _URL_LOGIN.sub(f"{MASK}@", value)
            case Mapping():
                return {
                    key: MASK if item is not None and _SECRET_NAME.search(str(key)) else masked(item)
                    for key, item in value.items()
                }
            case list() | tuple():
                return [masked(item) for item in value]
            case _:
                return value

    return dict(masked(config))
