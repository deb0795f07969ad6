"""The codec of models behind a server that takes messages: there are no tokens, a response is one message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from empg_cli.types import Step


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["user", "assistant"]
    content: str


class MessageCodec:
    """No tokenizer is involved."""

    stop_ids: tuple[int, ...] = ()
    thought = ""
    needs_end = False

    def opening(self, text: str) -> list[Message]:
        return [Message("user", text)]

    def turn(self, text: str, *, ended: bool) -> list[Message]:
        return [Message("user", text)]

    def decode(self, response: Sequence[Message]) -> str:
        return "".join(message.content for message in response)

    def without(self, response: list[Message], surplus: int) -> list[Message]:
        text = self.decode(response)
        end = len(text) - surplus
        return self.response(text[:end]) if text[end:].strip() else response

    def response(self, text: str) -> list[Message]:
        return [Message("assistant", text)]

    def step(self, prompt: list[Message], response: list[Message]) -> Step:
        return Step([], [], [], [], texts=(self.decode(prompt), self.decode(response)))
