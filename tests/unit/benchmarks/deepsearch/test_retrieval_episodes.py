"""Whole episodes over remote engines: what a group asks alike is one call, and failures stay with their episode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks.deepsearch.benchmark import DeepSearchBenchmark
from empg_cli.benchmarks.deepsearch.judge import JudgeError
from empg_cli.benchmarks.deepsearch.retrieval.base import BudgetSpentError
from empg_cli.config import load
from empg_cli.config.deepsearch import Deepsearch
from empg_cli.services.errors import AccessDeniedError, MissingKeyError

QUESTIONS = '{"id": "0", "question": "Who?", "golden_answers": ["Ann"]}\n'
WEB = ("retrieval@benchmark.retrieval=searxng", "benchmark.retrieval.mode=live", "benchmark.retrieval.cache=null")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DeepSearchBenchmark]:
    (tmp_path / "nq").mkdir()
    (tmp_path / "nq" / "test.jsonl").write_text(QUESTIONS)

    def benchmark(*words: str) -> DeepSearchBenchmark:
        settings = load(["benchmark=deepsearch", f"benchmark.data_dir={tmp_path}", *words]).benchmark
        assert isinstance(settings, Deepsearch)
        keys = settings.model_dump()
        for key in ("name", "split", "eval_tasks", "invalid_action_penalty", "invalid_action_scope"):
            del keys[key]
        return DeepSearchBenchmark(**keys)

    return benchmark


def found(reply: Any, **keys: Any) -> Any:
    return reply({"results": [{"title": "T", "url": "http://x.org", "content": "Ann did it."}]}, **keys)


def episodes(benchmark: DeepSearchBenchmark, count: int) -> list[Any]:
    envs = [benchmark.make_env(benchmark.tasks("test")[0]) for _ in range(count)]
    for env in envs:
        env.reset()
    return envs


def test_a_group_that_asks_the_same_costs_one_call(make: Any, fake_server: Any, reply: Any) -> None:
    server = fake_server(lambda request: found(reply, delay_s=0.1))
    benchmark = make(*WEB, f"benchmark.retrieval.base_url={server.url}")
    envs = episodes(benchmark, 16)
    results = benchmark.step_many(envs, ["search[who did it]"] * 16)
    assert len(server.requests) == 1
    assert all("Ann did it." in result.text for result in results)
    answers = benchmark.step_many(envs, ["answer[Ann]"] * 15 + ["answer[Bob]"])
    assert [result.success for result in answers] == [True] * 15 + [False]


def test_one_episode_at_a_time_works_too(make: Any, fake_server: Any, reply: Any) -> None:
    server = fake_server(lambda request: found(reply))
    (env,) = episodes(make(*WEB, f"benchmark.retrieval.base_url={server.url}"), 1)
    assert "Ann did it." in env.step("search[who]").text
    assert env.step("answer[Ann]").success


def test_an_engine_that_goes_down_during_a_run_is_an_observation_and_a_count(
    make: Any, fake_server: Any, reply: Any
) -> None:
    server = fake_server(lambda request: found(reply))
    benchmark = make(*WEB, f"benchmark.retrieval.base_url={server.url}", "benchmark.retrieval.attempts=2")
    (env,) = episodes(benchmark, 1)
    assert "Ann" in env.step("search[who]").text
    server.handler = lambda request: reply(hang_up=True)
    failed = env.step("search[who else]")
    assert "did not answer" in failed.text
    assert "tried 2 times" in failed.info["search_error"]
    result = env.step("answer[Ann]")
    assert result.success
    assert result.info["failed_searches"] == 1


def test_budget_and_refusals_end_only_the_episodes_that_search(make: Any, fake_server: Any, reply: Any) -> None:
    server = fake_server(lambda request: found(reply))
    benchmark = make(*WEB, f"benchmark.retrieval.base_url={server.url}", "benchmark.retrieval.max_calls=1")
    results = benchmark.step_many(episodes(benchmark, 3), ["search[a]", "search[b]", "answer[Ann]"])
    kinds = [type(result) for result in results]
    assert kinds.count(BudgetSpentError) == 1
    assert results[2].success

    server.handler = lambda request: reply({}, 403)
    benchmark = make(*WEB, f"benchmark.retrieval.base_url={server.url}")
    with pytest.raises(AccessDeniedError, match="HTTP 403"):  # SearxNG without json among its formats
        episodes(benchmark, 1)[0].step("search[a]")


def test_judged_episodes_over_a_local_index(make: Any, fake_server: Any, reply: Any, tmp_path: Path) -> None:
    from empg_cli.benchmarks.deepsearch.corpus import Passage
    from empg_cli.benchmarks.deepsearch.index import build_index

    def verdict(request: Any) -> Any:
        prompt = request.json["messages"][0]["content"]
        if "Cas" in prompt:
            return reply({"error": "overloaded"}, 400)
        judgement = "correct" if "Anna" in prompt else "incorrect"
        return reply({"choices": [{"message": {"content": f'{{"judgement": "{judgement}"}}'}}]})

    server = fake_server(verdict)
    build_index([Passage("0", "Ann", "Ann did it.")], tmp_path / "index")
    benchmark = make(
        f"benchmark.retrieval.index_dir={tmp_path / 'index'}",
        "benchmark.reward=judge",
        "+judge@benchmark.judge=openai",
        f"benchmark.judge.base_url={server.url}/v1",
        "benchmark.judge.model=m",
    )
    envs = episodes(benchmark, 4)
    results = benchmark.step_many(envs, ["answer[Ann]", "answer[Anna]", "answer[Bob]", "answer[Cas]"])
    assert [getattr(result, "success", None) for result in results] == [True, True, False, None]
    assert isinstance(results[3], JudgeError)
    assert [getattr(result, "info", {"em": None})["em"] for result in results[:3]] == [1.0, 0.0, 0.0]
    assert len(server.requests) == 3  # the exact match needed no judge
    assert benchmark.fingerprint()["judge"]["model"] == "m"


def test_keys_that_are_missing_stop_before_the_first_episode(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    with pytest.raises(MissingKeyError, match="SERPER_API_KEY"):
        make("retrieval@benchmark.retrieval=serper", f"benchmark.retrieval.cache={tmp_path / 'c' / 'serper.sqlite'}")
    assert not (tmp_path / "c").exists()  # nothing is left behind by a run that did not start
