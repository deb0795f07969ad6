"""Masks credentials before a config leaves the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from empg_cli.config.secrets import MASK, SECRET_NAME, URL_LOGIN

_SHORTEST_SECRET = 8


def mask_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with `***` for values of secret-looking keys, logins inside URLs, and text that repeats a secret
    environment variable (WANDB_API_KEY, HF_TOKEN ...)."""
    secrets = [
        value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    ]

    def masked(value: Any) -> Any:
        match value:
            case str():
                for secret in secrets:
                    value = value.replace(secret, MASK)
                return URL_LOGIN.sub(f"{MASK}@", value)
            case Mapping():
                return {
                    key: MASK if item is not None and SECRET_NAME.search(str(key)) else masked(item)
                    for key, item in value.items()
                }
            case list() | tuple():
                return [masked(item) for item in value]
            case _:
                return value

    return dict(masked(config))
