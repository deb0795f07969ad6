"""What counts as the text of a reply, by OpenAI's form and what servers make of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from empg_cli.benchmarks.deepsearch.judge import read_verdict
from empg_cli.services.chat import MOST_CHARS_PER_TOKEN, Reply, read_reply
from empg_cli.services.parsing import parse_json


def answer(content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "tool_calls": [{"id": "1"}]}
    return {"choices": [{"message": message, "finish_reason": "stop"}], **more}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("look", "look"),
        ("", ""),
        (None, ""),
        ([], ""),
        (
            [{"type": "text", "text": "lo"}, {"type": "refusal", "refusal": "no"}, {"type": "text", "text": "ok"}],
            "look",
        ),
        ([{"type": "thinking", "thinking": "hm"}], ""),
    ],
)
def test_text_and_parts_of_text(content: Any, text: str) -> None:
    assert read_reply(answer(content), max_tokens=9) == Reply(text, False, 0, 0)


@pytest.mark.parametrize(
    "content", [0, False, 7, {}, ["look"], [{"text": "look"}], [{"type": "text"}], [{"type": "text", "text": 1}]]
)
def test_anything_else_is_no_reply(content: Any) -> None:
    with pytest.raises((TypeError, KeyError)):
        read_reply(answer(content), max_tokens=9)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3}, (7, 3)),
        ({"prompt_tokens": 7.0}, (7, 0)),
        ({"prompt_tokens": "many", "completion_tokens": [3]}, (0, 0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (0, 0)),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, (0, 0)),
        ({"prompt_tokens": 10**400, "completion_tokens": 10**12}, (0, 0)),
        ([7, 3], (0, 0)),
        (None, (0, 0)),
    ],
)
def test_usage_counts_what_can_be_counted(usage: Any, counts: tuple[int, int]) -> None:
    reply = read_reply(answer("look", usage=usage), max_tokens=9)
    assert (reply.prompt_tokens, reply.completion_tokens) == counts


def test_a_text_longer_than_its_tokens_is_no_reply() -> None:
    assert read_reply(answer("x" * 3 * MOST_CHARS_PER_TOKEN), max_tokens=3).text
    with pytest.raises(ValueError, match="193 characters are no 3 tokens"):
        read_reply(answer("x" * (3 * MOST_CHARS_PER_TOKEN + 1)), max_tokens=3)


def test_half_a_character_is_replaced_and_a_whole_one_kept() -> None:
    assert parse_json(b'{"\\ud800": ["a\\udc00b", "\\ud83d\\ude00"]}') == {"\ufffd": ["a\ufffdb", "\U0001f600"]}


def test_a_verdict_among_braces_is_found_fast() -> None:
    began = time.monotonic()
    assert read_verdict("{" * 40_000 + '"judgement": "correct"}') is True
    assert time.monotonic() - began < 1
