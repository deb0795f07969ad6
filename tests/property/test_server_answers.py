"""Whatever bytes a server sends, reading them ends in data that can be written, or in one kind of error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.benchmarks.deepsearch.judge import read_verdict
from empg_cli.benchmarks.deepsearch.web.providers import Brave, JinaReader, SearxNG, Serper, Tavily
from empg_cli.services.chat import read_reply
from empg_cli.services.errors import BadAnswerError
from empg_cli.services.http import retry_after
from empg_cli.services.parsing import NotJsonError, parse_json, read_answer

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "type", "text", "usage", "prompt_tokens", "results", "url",
                         "score", "organic", "link", "web", "data", "finish_reason"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
PROVIDERS = [Serper("k", "u"), Tavily("k", "u"), Brave("k", "u"), SearxNG("u"), JinaReader("k", "u")]


@given(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()))
def test_bytes_are_json_that_can_be_written_or_an_error(body: bytes) -> None:
    with contextlib.suppress(NotJsonError):
        json.dumps(parse_json(body), ensure_ascii=False).encode()


@given(
    anything | st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"message": anything}), min_size=1)})
)
def test_any_answer_to_a_chat_is_a_reply_or_a_bad_answer(answer: Any) -> None:
    try:
        reply = read_answer(json.dumps(answer).encode(), lambda data: read_reply(data, max_tokens=4))
    except BadAnswerError:
        return
    assert isinstance(reply.text, str) and reply.prompt_tokens >= 0 and reply.completion_tokens >= 0
    reply.text.encode()


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
@given(answer=anything)
def test_any_answer_of_a_search_engine_is_hits_or_a_bad_answer(provider: Any, answer: Any) -> None:
    try:
        hits = read_answer(json.dumps(answer).encode(), provider.parse)
    except BadAnswerError:
        return
    for hit in hits:
        assert all(isinstance(text, str) for text in (hit.id, hit.title, hit.text, hit.url))
        assert isinstance(hit.score, float)


@given(st.text())
def test_any_retry_after_is_a_wait_or_nothing(told: str) -> None:
    wait = retry_after({"retry-after": told})
    assert wait is None or wait >= 0


@given(st.text(st.sampled_from('{}":,judgement correct in\n')))
def test_any_reply_of_a_judge_is_a_verdict_or_none(reply: str) -> None:
    assert read_verdict(reply) in (True, False, None)
