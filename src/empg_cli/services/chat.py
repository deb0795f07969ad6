"""What a server says in reply to a chat: an answer of `/chat/completions`, in the form of OpenAI's documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOST_CHARS_PER_TOKEN = 64
"""Few tokens stand for more, and no text is made of these alone."""


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    was_cut: bool
    """The token limit ended it."""
    prompt_tokens: int
    completion_tokens: int
    """As the server counts; 0 where it does not say."""


def read_reply(answer: Any, *, max_tokens: int) -> Reply:
    """
    Raises:
        KeyError, IndexError, TypeError, AttributeError, ValueError: the answer has another form, or is much longer than
            `max_tokens` could be.
    """
    choice = answer["choices"][0]
    text = _text(choice["message"].get("content"))
    if len(text) > MOST_CHARS_PER_TOKEN * max_tokens:
        raise ValueError(f"{len(text)} characters are no {max_tokens} tokens")
    usage = answer.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        text,
        choice.get("finish_reason") == "length",
        _count(counts.get("prompt_tokens")),
        _count(counts.get("completion_tokens")),
    )


def _text(content: Any) -> str:
    """Of a message: a string, or a list of parts, of which those of text count. Null: all tokens went into hidden
    reasoning, or into calls of tools that nobody has offered."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError("content is neither text nor a list of parts")
    return "".join(part["text"] for part in content if part["type"] == "text")


def _count(value: Any) -> int:
    """Servers put much into `usage`; what is no count of tokens is not counted."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < 1e12 else 0
