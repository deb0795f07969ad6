"""`empg eval endpoint=openai` against a local server over a real socket."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from empg_cli.services import http as service
from tests.support.server import FakeServer, Reply, Request

Empg = Callable[..., Result]

KEY = "sk-a-secret-that-nobody-may-see"
SMALL = {
    "alfworld": ("benchmark.task_types=[pick_and_place_simple]", "benchmark.train_games=4"),
    "webshop": ("benchmark.num_products=60",),
    "deepsearch": (
        "benchmark.world.scale=0.1",
        "benchmark.world.train_questions=20",
        "benchmark.world.test_questions=4",
    ),
}
ANSWERS = {
    "alfworld": "<think>I look.</think><action>look</action>",
    "webshop": "<think>I search.</think><action>search[red shoes]</action>",
    "deepsearch": "<think>I search.</think><search>river</search>",
}


def says(text: str, finish: str = "stop") -> Reply:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return Reply({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """Answers every chat with `look`; short waits between tries."""
    monkeypatch.setattr(service, "FIRST_WAIT_S", 0.01)
    fake = FakeServer(lambda request: says(ANSWERS["alfworld"]) if request.method == "POST" else Reply({"data": []}))
    yield fake
    fake.close()


def words(server: FakeServer | str, benchmark: str = "alfworld", tasks: int = 2, steps: int = 2) -> tuple[str, ...]:
    url = server if isinstance(server, str) else server.url
    return (
        *("endpoint=openai", f"endpoint.base_url={url}/v1", "endpoint.model=big"),
        *(f"benchmark={benchmark}", *SMALL[benchmark], f"benchmark.eval_tasks={tasks}", f"benchmark.max_steps={steps}"),
        *("run_dir=out", "logger.console=quiet", "endpoint.attempts=3"),
    )


def chats(server: FakeServer) -> list[Request]:
    return [request for request in server.requests if request.path == "/v1/chat/completions"]


@pytest.mark.parametrize(
    ("benchmark", "context"),
    [("alfworld", "transcript"), ("alfworld", "window"), ("webshop", "window"), ("deepsearch", "transcript")],
)
def test_every_benchmark_is_played_over_its_chat_wording(
    empg: Empg, server: FakeServer, benchmark: str, context: str
) -> None:
    server.handler = lambda request: says(ANSWERS[benchmark]) if request.method == "POST" else Reply({})
    shown = json.loads(empg("eval", *words(server, benchmark), f"rollout={context}", "--json").stdout)
    assert shown["total"]["n"] == 2 and shown["total"]["valid_actions"] == 1.0
    assert shown["policy"]["usage"] == {
        "requests": 4, "answered": 4, "prompt_tokens": 28, "completion_tokens": 12, "retries": 0,
    }  # fmt: skip
    asked = sorted(chats(server), key=lambda chat: len(chat.json["messages"]))  # no episode waits for the other
    roles = [[message["role"] for message in chat.json["messages"]] for chat in asked]
    second = ["user", "assistant", "user"] if context == "transcript" else ["user"]
    assert roles == [["user"], ["user"], second, second]
    if context == "transcript":  # the answer goes back word for word
        assert {chat.json["messages"][1]["content"] for chat in asked[2:]} == {ANSWERS[benchmark]}
    trajectory = json.loads((Path("out/trajectories/update-000000-eval.jsonl")).read_text().splitlines()[0])
    assert [step["entropy"] for step in trajectory["steps"]] == [None, None]
    first = next(
        chat for chat in chats(server) if chat.json["messages"][-1]["content"] == trajectory["steps"][0]["prompt"]
    )
    assert len(first.json["messages"]) == 1
    assert [step["response"] for step in trajectory["steps"]] == [ANSWERS[benchmark]] * 2


def test_a_request_says_what_the_configuration_says(
    empg: Empg, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    options = ("endpoint.api_key_env=MY_KEY", "rollout.max_new_tokens=99", "rollout.eval_temperature=0.7")
    empg("eval", *words(server), *options, "+endpoint.extra_body.top_k=5", "endpoint.limit_key=max_completion_tokens")
    first, other, *_ = (chat.json for chat in chats(server))
    assert first | {"messages": [], "seed": 0} == {
        "model": "big", "messages": [], "temperature": 0.7, "max_completion_tokens": 99, "seed": 0, "top_k": 5,
    }  # fmt: skip
    assert first["seed"] != other["seed"]
    assert all(chat.headers["authorization"] == f"Bearer {KEY}" for chat in chats(server))
    seeds = [chat.json["seed"] for chat in chats(server)]
    server.requests.clear()
    empg("eval", *words(server), *options, "run_dir=again")
    assert sorted(chat.json["seed"] for chat in chats(server)) == sorted(seeds)
    for path in (path for path in Path().rglob("*") if path.is_file()):
        assert KEY not in path.read_text(errors="replace"), path


def test_a_refused_key_is_one_message(empg: Empg, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.handler = lambda request: Reply({"error": f"Incorrect API key: {KEY}"}, 401)
    result = empg("eval", *words(server), "endpoint.api_key_env=MY_KEY", code=2)
    assert "refused the request: HTTP 401" in result.stderr and "the key is the one in MY_KEY" in result.stderr
    assert KEY not in result.stderr + result.stdout and "Traceback" not in result.stderr
    assert len(server.requests) == 1
    assert "which is not set" in empg("eval", *words(server), "endpoint.api_key_env=NOT_SET", code=2).stderr
    assert "set endpoint.api_key_env" in empg("eval", *words(server), code=2).stderr


def test_a_server_that_is_down_is_one_message(empg: Empg) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = empg("eval", *words(url), code=2)
    assert f"the server at {url}/v1" in result.stderr and "is the server running" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_model_is_one_message(empg: Empg, server: FakeServer) -> None:
    server.handler = lambda request: Reply({"error": "The model `big` does not exist"}, 404)
    assert "The model `big` does not exist" in empg("eval", *words(server), code=2).stderr


def test_a_server_that_dies_ends_the_evaluation(empg: Empg, server: FakeServer) -> None:
    server.handler = lambda request: Reply(hang_up=True) if len(chats(server)) > 12 else says(ANSWERS["alfworld"])
    result = empg("eval", *words(server, tasks=24), code=2)
    assert "tried 3 times" in result.stderr and "is the server running" in result.stderr


def test_fast_refusals_do_not_hide_slow_answers(empg: Empg, server: FakeServer) -> None:
    """Twelve of 24 first requests are refused at once, before any of the others is answered."""
    seen: list[int] = []

    def answer(request: Request) -> Reply:
        if request.method == "POST" and len(request.json["messages"]) == 1:
            seen.append(len(seen))
            if seen[-1] % 2:
                return Reply({"error": "refused by the content filter"}, 400)
            time.sleep(0.5)
        return says(ANSWERS["alfworld"])

    server.handler = answer
    result = empg("eval", *words(server, tasks=24), "endpoint.concurrency=24", "--json")
    shown = json.loads(result.stdout)["total"]
    assert (shown["n"], shown["not_judged"]) == (12, 12)


def test_a_bad_answer_ends_its_episode_and_never_the_evaluation(empg: Empg, server: FakeServer) -> None:
    """The very first answer, and then eleven in a row after a good one; the server is there all the time."""

    def answer(request: Request) -> Reply:
        number = len(chats(server))
        return Reply(b"<html>") if number == 1 or 3 < number < 15 else says(ANSWERS["alfworld"])

    server.handler = answer
    result = empg("eval", *words(server, tasks=14), "rollout.max_concurrent=1", "--json")
    shown = json.loads(result.stdout)["total"]
    assert (shown["n"], shown["not_judged"]) == (2, 12)
    reasons = {row.get("error") for row in json.loads(Path("out/evaluation.json").read_text())["tasks"]}
    assert any(reason and "the answer is not JSON: b'<html>'" in reason for reason in reasons)


def test_a_server_of_bad_answers_alone_is_one_message(empg: Empg, server: FakeServer) -> None:
    server.handler = lambda request: Reply({"choices": []}) if request.method == "POST" else Reply({})
    for tasks, asked in ((3, 3), (40, 10)):  # ten in a row are enough
        server.requests.clear()
        concurrency = ("rollout.max_concurrent=1", f"run_dir=out-{tasks}")
        result = empg("eval", *words(server, tasks=tasks), *concurrency, code=2)
        assert "the answer has an unknown form" in result.stderr and "Traceback" not in result.stderr
        assert asked <= len(chats(server)) < asked + 3
        assert not Path(f"out-{tasks}/evaluation.json").exists()


def test_text_in_parts_and_halves_of_characters_are_played(empg: Empg, server: FakeServer) -> None:
    def answer(request: Request) -> Reply:
        parts = [{"type": "text", "text": "<think>\ud800</think><action>"}, {"type": "text", "text": "look</action>"}]
        choices = [{"message": {"content": parts}, "finish_reason": "stop"}]
        return Reply({"choices": choices, "usage": {"prompt_tokens": "many", "completion_tokens": -1}})

    server.handler = answer
    shown = json.loads(empg("eval", *words(server), "rollout=transcript", "--json").stdout)
    assert (shown["total"]["n"], shown["total"]["valid_actions"]) == (2, 1.0)
    assert shown["policy"]["usage"]["prompt_tokens"] == 0
    kept = json.loads(Path("out/trajectories/update-000000-eval.jsonl").read_text().splitlines()[0])
    assert kept["steps"][1]["response"] == "<think>\ufffd</think><action>look</action>"


def test_a_proxy_in_the_environment_is_not_for_this_machine(
    empg: Empg, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "socks5://user:pass@127.0.0.1:9")
    assert json.loads(empg("eval", *words(server), "--json").stdout)["total"]["n"] == 2
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    result = empg("eval", *words("http://models.invalid"), "run_dir=elsewhere", code=2)
    assert "names a SOCKS proxy for models.invalid" in result.stderr and "pass@" not in result.stderr


def test_a_busy_server_is_asked_again_when_it_says(empg: Empg, server: FakeServer) -> None:
    waits: list[float] = []

    def busy_once(request: Request) -> Reply:
        if request.method == "POST" and not waits:
            waits.append(0.05)
            return Reply({"error": "slow down"}, 429, {"Retry-After": "0.05"})
        return says(ANSWERS["alfworld"])

    server.handler = busy_once
    shown = json.loads(empg("eval", *words(server), "endpoint.concurrency=1", "--json").stdout)
    assert shown["policy"]["usage"]["retries"] == 1 and shown["total"]["n"] == 2
    assert server.most_at_once == 1


def test_lost_episodes_are_counted_apart(empg: Empg, server: FakeServer) -> None:
    doomed: list[str] = []

    def answer(request: Request) -> Reply:
        if request.method == "GET":
            return Reply(b"", 404)  # a server without /models
        opening = request.json["messages"][0]["content"]
        doomed.append(opening)  # the first task that asks is never answered
        return Reply({"error": "overloaded"}, 503) if opening == doomed[0] else says(ANSWERS["alfworld"])

    server.handler = answer
    result = empg("eval", *words(server, tasks=4), "seeds=2", "endpoint.concurrency=1", "--json")
    (entry,) = json.loads(result.stdout)["temperatures"]
    assert entry["not_judged"] == 2
    assert [run["n"] for run in entry["runs"]] == [3, 3]
    one = json.loads(Path("out/passes/temperature-0.4-seed-1.json").read_text())
    assert (one["total"]["n"], one["total"]["not_judged"]) == (3, 1)
    rows = one["tasks"]
    assert sorted(row["status"] for row in rows) == ["env_error", *["step_limit"] * 3]


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 512 tokens. However, ...",
        "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 2048 tokens "
        "and your request has 1900 input tokens",
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
    ],
)
def test_a_prompt_that_is_too_long_is_the_agents_failure(empg: Empg, server: FakeServer, said: str) -> None:
    too_long = {"object": "error", "message": said}

    def answer(request: Request) -> Reply:
        has_history = request.method == "POST" and len(request.json["messages"]) > 1
        return Reply(too_long, 400) if has_history else says(ANSWERS["alfworld"])

    server.handler = answer
    shown = json.loads(empg("eval", *words(server), "--json").stdout)
    assert (shown["total"]["n"], shown["total"]["success_rate"]) == (2, 0.0)
    rows = json.loads(Path("out/evaluation.json").read_text())["tasks"]
    assert {row["status"] for row in rows} == {"context_overflow"}


def test_a_response_that_was_cut_is_malformed(empg: Empg, server: FakeServer) -> None:
    server.handler = lambda request: says("<think>so many words", "length")
    shown = json.loads(empg("eval", *words(server), "--json").stdout)
    assert shown["total"]["valid_actions"] == 0.0


def test_messages_do_not_flood_the_log(empg: Empg, server: FakeServer) -> None:
    result = empg("eval", *words(server))
    assert "HTTP Request" not in result.stderr + Path("out/eval.log").read_text()
    assert re.search(r"evaluating big at http://127.0.0.1:\d+/v1 on alfworld", result.stderr)
