"""What is asked of a server of vLLM, word for word, and which answers are taken."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from empg_cli.services import http
from empg_cli.services.errors import BadAnswerError, NoAnswerError
from empg_cli.services.vllm import (
    UNKNOWN,
    PromptTooLong,
    Span,
    VllmServer,
    WrongVersion,
    question,
    read_generated,
)
from tests.support.server import FakeServer, Reply, Request

ASKED = question([5, 6, 7], name="empg-1", seed=3, stop_ids=(2, 9), max_tokens=4, temperature=0.7)


def answer(token_ids: list[int], *, reason: str = "length", **changes: Any) -> dict[str, Any]:
    """As vLLM 0.32 gives it, of what we read."""
    choice = {
        "index": 0,
        "finish_reason": reason,
        "token_ids": token_ids,
        "logprobs": {"content": [{"token_id": token, "logprob": -0.5 * token} for token in token_ids]},
        "weight_versions": [{"version": "4", "start": 0, "end": len(token_ids)}],
    }
    usage = {"prompt_tokens_details": {"cached_tokens": 16}}
    return {"request_id": "generate-tokens-empg-1", "choices": [choice | changes], "usage": usage}


FULL = [11, 12, 13, 14]


def test_the_whole_question():
    assert question(
        (5, 6), name="empg-00ff", seed=2**61, stop_ids=(3,), max_tokens=7, temperature=0.4, top_p=0.9, model="adapter"
    ) == {
        "request_id": "empg-00ff",
        "model": "adapter",
        "token_ids": [5, 6],
        "sampling_params": {
            "n": 1,
            "max_tokens": 7,
            "min_tokens": 0,
            "temperature": 0.4,
            "top_p": 0.9,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": 2305843009213693952,
            "logprobs": 0,
            "stop_token_ids": [3],
            "ignore_eos": True,
            "detokenize": False,
        },
    }
    assert (ASKED["model"], ASKED["sampling_params"]["top_p"]) == ("policy", 1.0)


def test_an_answer_that_is_taken():
    found = read_generated(answer(FULL), ASKED)
    assert (found.token_ids, found.logprobs, found.ended) == (FULL, [-5.5, -6.0, -6.5, -7.0], False)
    assert (found.spans, found.cached_tokens) == ((Span(4, 0, 4),), 16)
    stopped = read_generated(answer([11, 9], reason="stop"), ASKED)
    assert (stopped.token_ids, stopped.ended) == ([11, 9], True)
    last = read_generated(answer([11, 12, 13, 2], reason="stop"), ASKED)
    assert last.ended, "the bound and a stop token at once"
    assert read_generated(answer(FULL) | {"usage": None}, ASKED).cached_tokens == 0


def test_versions_of_spans():
    spans = [{"version": "4", "start": 0, "end": 1}, {"version": "5", "start": 1, "end": 4}]
    found = read_generated(answer(FULL, weight_versions=spans), ASKED)
    assert (found.oldest, found.newest) == (4, 5)
    unnamed = [{"version": "default", "start": 0, "end": 4}]
    assert read_generated(answer(FULL, weight_versions=unnamed), ASKED).newest == UNKNOWN == -1


def span(start: int, end: int, version: Any = "4") -> dict[str, Any]:
    return {"version": version, "start": start, "end": end}


def content(*logprobs: Any, ids: list[int] = FULL) -> dict[str, Any]:
    return {"content": [{"token_id": token, "logprob": one} for token, one in zip(ids, logprobs, strict=True)]}


NOT_TAKEN: dict[str, dict[str, Any]] = {
    "no choice": answer(FULL) | {"choices": []},
    "two choices": {**answer(FULL), "choices": answer(FULL)["choices"] * 2},
    "another request": answer(FULL) | {"request_id": "generate-tokens-empg-2"},
    "a request whose name is longer": answer(FULL) | {"request_id": "generate-tokens-other-empg-1"},
    "no request": {name: value for name, value in answer(FULL).items() if name != "request_id"},
    "no token": answer([], logprobs={"content": []}, weight_versions=[]),
    "a token too many": answer([*FULL, 15]),
    "a token that is no number": answer([11, 12, 13, True], logprobs=content(-1, -1, -1, -1, ids=[11, 12, 13, 1])),
    "a negative token": answer([11, 12, 13, -4]),
    "a token that is a fraction": answer([11, 12, 13, 14.0], logprobs=content(-1, -1, -1, -1)),
    "a log-prob too few": answer(FULL, logprobs=content(-1, -1, -1, ids=FULL[:3])),
    "a log-prob too many": answer(FULL, logprobs=content(-1, -1, -1, -1, -1, ids=[*FULL, 15])),
    "log-probs of other tokens": answer(FULL, logprobs=content(-1, -1, -1, -1, ids=[11, 12, 14, 13])),
    "a log-prob that is null": answer(FULL, logprobs=content(-1, -1, -1, None)),
    "a log-prob that is no number": answer(FULL, logprobs=content(-1, -1, -1, float("nan"))),
    "a log-prob without an end": answer(FULL, logprobs=content(-1, -1, -1, float("-inf"))),
    "a log-prob above zero": answer(FULL, logprobs=content(-1, -1, -1, 0.01)),
    "vLLM's word for no log-prob": answer(FULL, logprobs=content(-1, -1, -1, -9999.0)),
    "no log-probs": answer(FULL, logprobs=None),
    "a stop token before the end": answer([11, 9, 13, 14]),
    "a stop that is none": answer(FULL, reason="stop"),
    "a stop token that did not stop": answer([11, 12, 13, 9]),
    "an answer that was given up": answer([11, 12], reason="abort"),
    "no versions": answer(FULL, weight_versions=None),
    "no spans": answer(FULL, weight_versions=[]),
    "versions from the second token on": answer(FULL, weight_versions=[span(1, 4)]),
    "versions up to the last but one": answer(FULL, weight_versions=[span(0, 3)]),
    "versions beyond the end": answer(FULL, weight_versions=[span(0, 5)]),
    "a gap between versions": answer(FULL, weight_versions=[span(0, 1), span(2, 4)]),
    "an empty span": answer(FULL, weight_versions=[span(0, 0), span(0, 4)]),
    "a span that is no number": answer(FULL, weight_versions=[span(0, "4")]),  # type: ignore[arg-type]
    "a negative count of cached tokens": answer(FULL) | {"usage": {"prompt_tokens_details": {"cached_tokens": -1}}},
    "a list": [],  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_an_answer_that_is_not_taken(name: str):
    with pytest.raises((KeyError, IndexError, TypeError, AttributeError, ValueError)):
        read_generated(copy.deepcopy(NOT_TAKEN[name]), ASKED)


def test_an_answer_that_the_server_had_no_room_for():
    with pytest.raises(PromptTooLong, match="model reads 5 tokens, and 4 new ones were asked"):
        read_generated(answer([11, 12]), ASKED)


# --- over HTTP -------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.001)
    server = FakeServer(lambda request: Reply({}))
    yield server
    server.close()


def told(fake: FakeServer, what: Callable[[VllmServer], Awaitable[Any]], **options: Any) -> Any:
    async def ask() -> Any:
        server = VllmServer(f"{fake.url}/", **{"timeout_s": 5, "attempts": 3, "concurrency": 4} | options)
        try:
            return await what(server)
        finally:
            await server.close()

    return asyncio.run(ask())


def sent(fake: FakeServer) -> list[tuple[str, str, dict[str, str], Any]]:
    return [(one.method, one.path, one.params, one.json if one.body else None) for one in fake.requests]


def test_what_is_said_to_a_server_word_for_word(fake: FakeServer):
    told(fake, lambda server: server.pause())
    told(fake, lambda server: server.resume())
    told(fake, lambda server: server.join_transfer({"world_size": 2}))
    told(fake, lambda server: server.begin_update())
    told(fake, lambda server: server.receive({"names": ["w"]}))
    told(fake, lambda server: server.end_update(12))
    told(fake, lambda server: server.label(13))
    told(fake, lambda server: server.load_adapter("adapter", "/run/adapter-3"))
    told(fake, lambda server: server.sleep(2))
    told(fake, lambda server: server.wake("weights"))
    assert sent(fake) == [
        ("POST", "/pause", {"mode": "keep"}, None),
        ("POST", "/reset_prefix_cache", {"reset_running_requests": "true"}, None),
        ("POST", "/resume", {}, None),
        ("POST", "/shutdown_weight_transfer_engine", {}, None),
        ("POST", "/init_weight_transfer_engine", {}, {"init_info": {"world_size": 2}}),
        ("POST", "/start_weight_update", {}, None),
        ("POST", "/update_weights", {}, {"update_info": {"names": ["w"]}}),
        ("POST", "/finish_weight_update", {}, {"weight_version": "12"}),
        ("POST", "/update_weight_version", {}, {"new_version": "13"}),
        ("POST", "/v1/load_lora_adapter", {}, {
            "lora_name": "adapter", "lora_path": "/run/adapter-3", "load_inplace": True,
        }),
        ("POST", "/sleep", {"level": "2"}, None),
        ("POST", "/wake_up", {"tags": "weights"}, None),
    ]  # fmt: skip


def test_an_update_that_broke_is_ended_before_another_group_is_joined(fake: FakeServer):
    fake.script = [Reply({"error": "Cannot release a trainer connection during a weight update"}, 500)]
    told(fake, lambda server: server.join_transfer({}))
    assert [path for _, path, _, _ in sent(fake)] == [
        "/shutdown_weight_transfer_engine", "/finish_weight_update", "/shutdown_weight_transfer_engine",
        "/init_weight_transfer_engine",
    ]  # fmt: skip
    assert sent(fake)[1][3] is None, "no version: the weights are none"


def test_what_a_server_says_of_itself(fake: FakeServer):
    fake.script = [Reply({"weight_version": "7"}), Reply({"weight_version": "default"}), Reply({"world_size": 4})]
    assert told(fake, lambda server: server.weight_version()) == 7
    assert told(fake, lambda server: server.weight_version()) == UNKNOWN
    assert told(fake, lambda server: server.world_size()) == 4
    assert [path for _, path, _, _ in sent(fake)] == ["/weight_info", "/weight_info", "/get_world_size"]


def test_what_is_told_is_told_once(fake: FakeServer):
    """Whether the first of two was carried out, nobody would know."""
    fake.script = [Reply({}, 503), Reply({})]
    with pytest.raises(NoAnswerError, match=r"HTTP 503.*tried once"):
        told(fake, lambda server: server.begin_update())
    assert len(fake.requests) == 1


def test_a_server_whose_routes_are_closed_says_how_to_open_them(fake: FakeServer):
    fake.script = [Reply({"detail": "Not Found"}, 404)]
    with pytest.raises(BadAnswerError, match=r"HTTP 404.*: start it with VLLM_SERVER_DEV_MODE=1"):
        told(fake, lambda server: server.pause())


@pytest.mark.parametrize("version", ["0.32.0", "0.33.1.dev2+g123", "1.0"])
def test_versions_that_have_the_routes(fake: FakeServer, version: str):
    fake.script = [Reply({"version": version})]
    told(fake, lambda server: server.check())


@pytest.mark.parametrize("version", ["0.31.9", "0.9", "dev"])
def test_an_older_version_is_refused(fake: FakeServer, version: str):
    fake.script = [Reply({"version": version})]
    with pytest.raises(WrongVersion, match=f"server at {fake.url}/ has version {version}; 0.32 or newer is needed"):
        told(fake, lambda server: server.check())


@pytest.mark.parametrize(
    "reply",
    [Reply({}), Reply(b"<html>"), Reply({}, 404), Reply({}, 401), Reply([1])],
    ids=["another form", "no JSON", "no such route", "a key is asked for", "a list"],
)
def test_what_is_no_vllm_is_refused(fake: FakeServer, reply: Reply):
    fake.script = [reply]
    with pytest.raises(WrongVersion, match="is it a server of vLLM"):
        told(fake, lambda server: server.check())


def test_nobody_there_is_no_wrong_version(fake: FakeServer):
    fake.script = [Reply({}, 503)]
    with pytest.raises(NoAnswerError, match="HTTP 503"):
        told(fake, lambda server: server.check())


def test_whether_somebody_is_there(fake: FakeServer):
    fake.script = [Reply(b""), Reply({}, 503), Reply(hang_up=True)]
    assert [told(fake, lambda server: server.is_there()) for _ in range(3)] == [True, False, False]
    assert {(one.method, one.path) for one in fake.requests} == {("GET", "/health")}


def test_whoever_does_not_know_health_is_somebody(fake: FakeServer):
    """Whoever that is: its version is looked at next, instead of waiting for it."""
    fake.script = [Reply({}, 404)]
    assert told(fake, lambda server: server.is_there())


DECODER = "The decoder prompt (length {length}) "
MOST = (
    "longer than the maximum model length of 131072. Make sure that `max_model_len` is no smaller than the number of "
)


@pytest.mark.parametrize(
    "message",
    [
        DECODER.format(length=140000) + f"is {MOST}text tokens.",
        DECODER.format(length=131072) + f"plus the number of requested output tokens (at least 1) is {MOST}text tokens",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
    ],
)
def test_a_prompt_that_is_too_long(fake: FakeServer, message: str):
    fake.script = [Reply({"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}, 400)]
    with pytest.raises(PromptTooLong):
        told(fake, lambda server: server.generate(ASKED))
    assert len(fake.requests) == 1, "it would be as long the second time"


def test_another_refusal_is_no_long_prompt(fake: FakeServer):
    fake.script = [Reply({"error": {"message": "temperature must be in [0, 2], got 9.0."}}, 400)]
    with pytest.raises(BadAnswerError, match="temperature must be in") as caught:
        told(fake, lambda server: server.generate(ASKED))
    assert not isinstance(caught.value, PromptTooLong)


def right(request: Request) -> Reply:
    return Reply(answer(FULL) | {"request_id": f"generate-tokens-{request.json['request_id']}"})


def test_an_answer_that_is_not_taken_is_asked_for_again(fake: FakeServer):
    fake.handler = right
    fake.script = [Reply({}, 500), Reply(b"{"), Reply(NOT_TAKEN["another request"])]
    assert told(fake, lambda server: server.generate(ASKED)).token_ids == FULL
    assert sent(fake) == [("POST", "/inference/v1/generate", {}, ASKED)] * 4, "the same each time"


def test_the_tries_of_an_answer_are_counted(fake: FakeServer):
    async def retries(server: VllmServer) -> int:
        await server.generate(ASKED)
        return server.retries

    fake.handler = right
    fake.script = [Reply({}, 503), Reply(NOT_TAKEN["no choice"])]
    assert told(fake, retries) == 2
    fake.handler = lambda request: Reply(NOT_TAKEN["no choice"])
    fake.requests.clear()
    with pytest.raises(BadAnswerError, match=r"the answer has an unknown form: .*, tried 3 times"):
        told(fake, lambda server: server.generate(ASKED))
    assert len(fake.requests) == 3
    fake.handler = lambda request: Reply({}, 500)
    fake.requests.clear()
    with pytest.raises(NoAnswerError, match=r"HTTP 500.*, tried 3 times"):
        told(fake, lambda server: server.generate(ASKED))
    assert len(fake.requests) == 3


def test_a_time_out_is_asked_again(fake: FakeServer):
    fake.handler = right
    fake.script = [Reply(answer(FULL), delay_s=2.5)]
    assert told(fake, lambda server: server.generate(ASKED), timeout_s=1).token_ids == FULL
    assert len(fake.requests) == 2
