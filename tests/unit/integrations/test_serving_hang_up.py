"""A client that goes away is not sampled for any more, and neither delays nor changes the answers of others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from empg_cli.agents.codec import CompactCodec
from empg_cli.integrations.serving.answering import Answerer
from empg_cli.integrations.serving.app import ServingApp
from tests.support.tiny import tiny_config, tiny_policy

PROMPT = list(range(4, 24))


class Endless(CompactCodec):
    """Nothing ends an answer but its limit."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.stop_ids = ()  # type: ignore[assignment]


async def ask(app: ServingApp, tokens: int, hang_up_after_s: float | None) -> dict[str, Any] | None:
    """The answer; None when there was none."""
    body = {"model": "mine", "prompt": PROMPT, "max_tokens": tokens, "seed": 7, "return_token_ids": True}
    incoming = [{"type": "http.request", "body": json.dumps(body).encode()}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await asyncio.sleep(10_000 if hang_up_after_s is None else hang_up_after_s)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/v1/completions"}, receive, send)
    return json.loads(sent[-1]["body"]) if sent else None


def test_nothing_is_sampled_for_a_client_that_has_gone() -> None:
    policy = tiny_policy(tiny_config())

    with Answerer(policy, Endless(policy.tokenizer), version=0, most_tokens=4096, most_at_once=2) as answerer:
        app = ServingApp(answerer, name="mine", source="here", default_tokens=4)

        async def together() -> tuple[Any, ...]:
            # Places for two: the third is answered once somebody has gone.
            return await asyncio.gather(ask(app, 4000, 0.3), ask(app, 4000, 0.3), ask(app, 12, None))

        gone, other, answered = asyncio.run(together())
        assert gone is None and other is None
        assert answered["usage"]["completion_tokens"] == 12
        again = asyncio.run(ask(app, 12, None))
        assert again is not None
        assert again["choices"][0]["token_ids"] == answered["choices"][0]["token_ids"]
        assert len(answerer._engine._reader) == 0  # no row is left behind
