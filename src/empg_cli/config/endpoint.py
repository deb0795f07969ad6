"""The settings of a model behind a server, for `empg eval`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from empg_cli.config.service import Address, Remote

OWN_KEYS = frozenset({"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "seed", "n", "stream"})
"""What a request holds anyway, or what would change its form."""


class Endpoint(Remote):
    """An OpenAI-compatible `/chat/completions`: vLLM, SGLang, llama.cpp, or a provider."""

    base_url: Address
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
    def extra_body_adds(self) -> Endpoint:
        if taken := sorted(OWN_KEYS & self.extra_body.keys()):
            raise ValueError(f"extra_body must not hold {', '.join(taken)}: other settings decide that")
        return self
