"""The settings of a model behind a server, for `empg eval`."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import model_validator

from empg_cli.config.service import Remote

OWN_KEYS = frozenset({"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "seed", "n", "stream"})
"""What a request holds anyway, or what would change its form."""


class Endpoint(Remote):
    """An OpenAI-compatible `/chat/completions`: vLLM, SGLang, llama.cpp, or a provider."""

    base_url: str
    """Such as http://127.0.0.1:8000/v1 or https://api.openai.com/v1."""
    model: str
    """As the server calls it."""
    api_key_env: str | None
    """Environment variable that holds the key; null = none is sent. The key itself is never configured."""
    limit_key: Literal["max_tokens", "max_completion_tokens"]
    """Name of the request's token limit (rollout.max_new_tokens); newer OpenAI models take the second only."""
    send_seed: bool
    """Send a seed that depends on task, step and evaluation seed; turn it off for servers that refuse the field."""
    extra_body: dict[str, Any]
    """Further fields of each request, such as {chat_template_kwargs: {enable_thinking: false}}."""

    @model_validator(mode="after")
    def base_url_is_an_address(self) -> Endpoint:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url ({self.base_url}) must begin with http:// or https://")
        if "@" in urlsplit(self.base_url).netloc:
            raise ValueError("base_url must hold no user and password: it is written to files; use api_key_env")
        return self

    @model_validator(mode="after")
    def extra_body_adds(self) -> Endpoint:
        if taken := sorted(OWN_KEYS & self.extra_body.keys()):
            raise ValueError(f"extra_body must not hold {', '.join(taken)}: other settings decide that")
        return self
