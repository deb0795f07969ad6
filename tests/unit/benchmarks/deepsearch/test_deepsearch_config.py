"""Every retrieval and judge option composes, and settings that nothing reads are refused."""

from __future__ import annotations

import pytest

from empg_cli.config import load
from empg_cli.config.deepsearch import Deepsearch
from empg_cli.config.location import conf_dir
from empg_cli.config.problems import ConfigError

RETRIEVAL = sorted(path.stem for path in (conf_dir() / "retrieval").glob("*.yaml"))


def settings(*words: str) -> Deepsearch:
    node = load(["benchmark=deepsearch", *words]).benchmark
    assert isinstance(node, Deepsearch)
    return node


@pytest.mark.parametrize("name", RETRIEVAL)
def test_every_engine_composes(name: str) -> None:
    words = ["benchmark.retrieval.index_dir=somewhere"] if name == "dense" else []
    node = settings(f"retrieval@benchmark.retrieval={name}", *words)
    assert node.retrieval.engine == name


def test_all_engines_of_the_schema_have_a_file() -> None:
    assert {*RETRIEVAL} == {
        "tantivy", "bm25s", "dense", "http", "opensearch", "qdrant", "serper", "tavily", "brave", "searxng",
    }  # fmt: skip


def test_the_judge_composes() -> None:
    node = settings("+judge@benchmark.judge=openai", "benchmark.judge.model=m", "benchmark.reward=judge")
    assert node.judge is not None
    assert node.judge.temperature == 0.0


def test_defaults_are_offline_and_fictional() -> None:
    node = settings()
    assert (node.data_dir, node.world.mode, node.retrieval.engine, node.reward) == (None, "fictional", "tantivy", "em")


@pytest.mark.parametrize(
    ("words", "key", "message"),
    [
        (["benchmark.reward=judge"], "benchmark.judge", "must be given when reward=judge"),
        (
            ["+judge@benchmark.judge=openai", "benchmark.judge.model=m"],
            "benchmark.judge",
            "is not read when reward=em",
        ),
        (["benchmark.world.mode=real", "benchmark.world.scale=2.0"], "benchmark.world.scale", "is not read"),
        (["benchmark.top_k=0"], "benchmark.top_k", "greater than or equal to 1"),
        (["benchmark.split=valid_seen"], "benchmark.split", "must be train, dev, test"),
        (["benchmark.last_turn=answer", "benchmark.max_steps=1"], "benchmark.max_steps", "at least 2"),
        (["benchmark.retrieval.engine=google"], "benchmark.retrieval.engine", "must be"),
        (["+benchmark.retrieval.urls=[http://x]"], "benchmark.retrieval.urls", "is not read"),
        (["retrieval@benchmark.retrieval=serper", "benchmark.open_tool=true"], "benchmark.open_tool", "reader=jina"),
        (["benchmark.shaping.structure=0.2"], "benchmark.shaping.structure", "set action_form=tag"),
        (
            ["benchmark.rules=verl_agent", "benchmark.shaping.penalty=1.0"],
            "benchmark.shaping",
            "is not read when rules=verl_agent",
        ),
        (["benchmark.rules=search_r1", "benchmark.action_form=json"], "benchmark.action_form", "leave it any"),
        (["benchmark.rules=search_r1", "benchmark.open_tool=true"], "benchmark.open_tool", "must be false"),
        (["benchmark.rules=r1"], "benchmark.rules", "must be ours, search_r1 or verl_agent"),
        (["benchmark.shaping.structure=2.0"], "benchmark.shaping.structure", "less than or equal to 1"),
        (
            ["retrieval@benchmark.retrieval=searxng", "benchmark.retrieval.base_url=null"],
            "benchmark.retrieval",
            "base_url",
        ),
    ],
)
def test_refused_settings(words: list[str], key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(*words)
    found = caught.value.problems
    assert any(problem.key.startswith(key) and message in str(problem) for problem in found), found


def test_a_retrieval_key_of_another_benchmark_says_who_reads_it() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.name=deepsearch"):
        load(["+benchmark.retrieval.engine=tantivy"])
