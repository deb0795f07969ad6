"""Deep Search inside `collect`: a rollout batch waits for the network once, and failures end single episodes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.agents.agent import Agent
from empg_cli.agents.codec import ChatCodec
from empg_cli.agents.deepsearch_chat import DeepSearchChat
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.index import build_index
from empg_cli.config import load
from empg_cli.types import Status, Trajectory
from tests.support.chat import chat_tokenizer
from tests.support.scripted import scripted_rollout

GROUP = 16
QUESTIONS = '{"id": "0", "question": "Who?", "golden_answers": ["Ann"]}\n'
ANSWER = "<think>b</think><answer>Ann</answer>"


def search(query: str) -> str:
    return f"<think>a</think><search>{query}</search>"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Benchmark]:
    (tmp_path / "nq").mkdir()
    (tmp_path / "nq" / "test.jsonl").write_text(QUESTIONS)

    def benchmark(*words: str) -> Benchmark:
        settings = load(["benchmark=deepsearch", f"benchmark.data_dir={tmp_path}", *words]).benchmark
        return make_benchmark(**settings.model_dump())

    return benchmark


def over(url: str, engine: str) -> tuple[str, ...]:
    """Overrides for an engine behind `url`."""
    if engine == "http":
        return ("retrieval@benchmark.retrieval=http", f"benchmark.retrieval.urls=[{url}]")
    return (
        "retrieval@benchmark.retrieval=searxng",
        "benchmark.retrieval.mode=live",
        "benchmark.retrieval.cache=null",
        f"benchmark.retrieval.base_url={url}",
    )


def play(benchmark: Benchmark, *scripts: list[str]) -> list[Trajectory]:
    codec = ChatCodec(chat_tokenizer())
    make_agent = lambda: Agent(DeepSearchChat(), codec, context="transcript", history=0)  # noqa: E731
    return scripted_rollout(benchmark, make_agent, benchmark.tasks("test")[:1], scripts)


class Gate:
    """A search server that answers nobody before `expected` requests are in flight; one at a time they would fail."""

    def __init__(self, reply: Any, expected: int) -> None:
        self.reply = reply
        self.barrier = threading.Barrier(expected)
        self.is_open = True

    def __call__(self, request: Any) -> Any:
        if not self.is_open:
            self.barrier.wait(timeout=30)
        if request.path == "/health":
            return self.reply({}, 404)
        if request.path == "/retrieve":
            document = {"id": "1", "contents": '"T"\nAnn did it.'}
            return self.reply({"result": [[{"document": document, "score": 1.0}] for _ in request.json["queries"]]})
        return self.reply({"results": [{"title": "T", "url": "http://x.org", "content": "Ann did it."}]})


@pytest.mark.parametrize("engine", ["http", "searxng"])
def test_the_searches_of_a_rollout_batch_are_in_flight_together(
    engine: str, make: Any, fake_server: Any, reply: Any
) -> None:
    gate = Gate(reply, GROUP)
    server = fake_server(gate)
    benchmark = make(*over(server.url, engine))
    gate.is_open = False
    trajectories = play(benchmark, *([search(f"who {number}"), ANSWER] for number in range(GROUP)))
    assert server.most_at_once == GROUP
    assert all(trajectory.success for trajectory in trajectories)
    assert all("Ann did it." in trajectory.steps[1].observation for trajectory in trajectories)


@pytest.mark.parametrize("engine", ["http", "searxng"])
def test_what_a_group_asks_alike_is_one_call(engine: str, make: Any, fake_server: Any, reply: Any) -> None:
    server = fake_server(lambda request: Gate(reply, 1)(request))
    benchmark = make(*over(server.url, engine))
    before = len(server.requests)  # the check before the first episode
    slow = server.handler

    def handler(request: Any) -> Any:
        answer = slow(request)
        answer.delay_s = 0.2  # long enough for all of them to be asked meanwhile
        return answer

    server.handler = handler
    trajectories = play(benchmark, *([[search("who did it"), ANSWER]] * GROUP))
    assert len(server.requests) - before == 1
    assert all(trajectory.success for trajectory in trajectories)


def test_the_verdicts_of_a_rollout_batch_are_in_flight_together(
    make: Any, fake_server: Any, reply: Any, tmp_path: Path
) -> None:
    barrier = threading.Barrier(GROUP)

    def verdict(request: Any) -> Any:
        barrier.wait(timeout=30)
        is_right = "Anna 3" in request.json["messages"][0]["content"]
        content = '{"judgement": "correct"}' if is_right else '{"judgement": "incorrect"}'
        return reply({"choices": [{"message": {"content": content}}]})

    server = fake_server(verdict)
    build_index([Passage("0", "Ann", "Ann did it.")], tmp_path / "index")
    benchmark = make(
        f"benchmark.retrieval.index_dir={tmp_path / 'index'}",
        "benchmark.reward=judge",
        "+judge@benchmark.judge=openai",
        f"benchmark.judge.base_url={server.url}/v1",
        "benchmark.judge.model=m",
    )
    trajectories = play(benchmark, *([f"<think>b</think><answer>Anna {i}</answer>"] for i in range(GROUP)))
    assert server.most_at_once == GROUP
    assert [trajectory.success for trajectory in trajectories] == [i == 3 for i in range(GROUP)]


def test_numbers_of_the_last_step_are_kept(make: Any, fake_server: Any, reply: Any) -> None:
    server = fake_server(lambda request: Gate(reply, 1)(request))
    benchmark = make(*over(server.url, "searxng"))
    (trajectory,) = play(benchmark, [search("who"), "hm", ANSWER])
    assert trajectory.info["searches"] == 1.0
    assert trajectory.info["malformed_actions"] == 1.0
    assert trajectory.info["em"] == trajectory.info["f1"] == 1.0
    assert trajectory.info["step_limit"] == 0.0
    assert "answer" not in trajectory.info  # text stays out


def test_a_spent_budget_ends_the_episodes_that_search(make: Any, fake_server: Any, reply: Any) -> None:
    server = fake_server(lambda request: Gate(reply, 1)(request))
    benchmark = make(*over(server.url, "searxng"), "benchmark.retrieval.max_calls=1")
    first, second, third = play(benchmark, [search("a"), ANSWER], [search("b"), ANSWER], [ANSWER])
    assert (first.status, third.status) == (Status.SUCCESS, Status.SUCCESS)
    assert second.status is Status.ENV_ERROR and not second.is_scored
    assert second.error == ("BudgetSpentError: all 1 search calls of benchmark.retrieval.max_calls are spent")
    assert len(second.steps) == 1


def test_an_engine_that_goes_down_is_an_observation(make: Any, fake_server: Any, reply: Any) -> None:
    gate = Gate(reply, 1)
    server = fake_server(gate)
    benchmark = make(*over(server.url, "searxng"), "benchmark.retrieval.attempts=1")
    server.handler = lambda request: reply(hang_up=True)
    (trajectory,) = play(benchmark, [search("a"), ANSWER])
    assert trajectory.status is Status.SUCCESS
    assert "The search engine did not answer" in trajectory.steps[1].observation
    assert trajectory.info["failed_searches"] == 1.0
