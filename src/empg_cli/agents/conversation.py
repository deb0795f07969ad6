"""A conversation from elsewhere as what the model reads, and which tokens of it are the assistant's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from empg_cli.agents.chat_template import ChatTemplateError
from empg_cli.agents.codec import ChatCodec
from empg_cli.agents.control_tokens import THOUGHT_TAGS


class Said(Protocol):
    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a row, encoded by itself: a rollout encodes prompts and answers apart too."""

    token_ids: list[int]
    message: int | None
    """The answer that it is, with the token that ends it; None of what stands between answers."""


def rows_of(codec: ChatCodec, messages: Sequence[Said]) -> list[list[Piece]]:
    """The rows in which the model reads a conversation: one, where the chat template only ever appends to it.

    A template that shows earlier answers in another way than they were written (Qwen3's drops their thoughts) has never
    shown the whole conversation to the model; then each answer is a row with the prompt that it was an answer to.

    Args:
        messages: as in `runs.demonstrations.Conversation`; what they spell of control tokens is text.

    Raises:
        ChatTemplateError: the template refuses the conversation or leaves a message out, or an answer lacks the end of
            the thought that the template opens.
    """
    asked, answers = [], {}
    said = [{"role": one.role, "content": codec.template.control.defused(one.content)} for one in messages]
    for place, one in enumerate(messages):
        if one.role == "assistant":
            _check_thought(codec, one.content)
            asked.append(codec.template.render(said[:place], respond=True))
            answers[place] = codec.answer(one.content)
    for shown in said:
        if shown["role"] != "assistant" and shown["content"].strip() not in asked[-1]:
            raise ChatTemplateError(f"the chat template does not show a message of the {shown['role']}")
    told, new = "", []
    for prompt, answer in zip(asked, answers.values(), strict=True):
        if not prompt.startswith(told):
            return [
                [Piece(codec.encode(prompt), None), Piece(codec.encode(answers[place]), place)]
                for prompt, place in zip(asked, answers, strict=True)
            ]
        new.append(prompt.removeprefix(told))
        told = prompt + answer
    row = []
    for prompt, place in zip(new, answers, strict=True):
        row += [Piece(codec.encode(prompt), None), Piece(codec.encode(answers[place]), place)]
    return [row]


def _check_thought(codec: ChatCodec, answer: str) -> None:
    _, close = THOUGHT_TAGS
    if codec.thought and close not in codec.thought and close not in answer:
        said = f"the chat template begins answers with {codec.thought!r}, and this one has no {close}"
        raise ChatTemplateError(f"{said}: {answer[:60]!r}")
