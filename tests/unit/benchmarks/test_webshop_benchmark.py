"""The benchmark protocol: splits, tasks, environments, rewards, the fingerprint, the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark as BenchmarkProtocol
from empg_cli.benchmarks.base import DataError, Env, StepResult
from empg_cli.benchmarks.webshop import nouns
from empg_cli.benchmarks.webshop.benchmark import WebShopBenchmark
from empg_cli.config.schema import Benchmark
from empg_cli.types import Task

CONF = Path(__file__).parents[3] / "conf" / "benchmark" / "webshop.yaml"


def settings(**changes: Any) -> dict[str, Any]:
    keys: dict[str, Any] = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    return keys | {"data_dir": None, "num_products": 300, "expert": "goal"} | changes


def make(**changes: Any) -> WebShopBenchmark:
    benchmark = make_benchmark(**settings(**changes))
    assert isinstance(benchmark, WebShopBenchmark)
    return benchmark


@pytest.fixture(scope="module")
def webshop() -> WebShopBenchmark:
    return make()


def play_expert(benchmark: WebShopBenchmark, task: Task, *, skip_options: bool = False) -> StepResult:
    """The episode's last step; with skip_options the item is bought as it is."""
    env = benchmark.make_env(task)
    env.reset()
    for action in benchmark.expert(env):
        is_option = action in {f"click[{value}]" for value in env.session.goal.option_values}
        result = env.step("click[buy now]" if skip_options and is_option else action)
        if result.done:
            return result
    raise AssertionError(f"the expert gave up {task}")


def test_protocols(webshop: WebShopBenchmark) -> None:
    assert isinstance(webshop, BenchmarkProtocol)
    assert isinstance(webshop.make_env(webshop.tasks("test")[0]), Env)


def test_tasks_are_in_fixed_order(webshop: WebShopBenchmark) -> None:
    assert webshop.splits == ("train", "eval", "test")
    tasks = webshop.tasks("test")
    assert list(tasks) == list(make().tasks("test"))
    assert [task.task_id for task in tasks[2:4]] == ["synthetic/2", "synthetic/3"]
    assert tasks[-1].task_id == f"synthetic/{len(tasks) - 1}"
    assert {task.split for task in tasks} == {"test"}
    assert {task.kind for task in tasks} == {"beauty", "electronics", "fashion", "garden", "grocery"}
    with pytest.raises(ValueError, match="train, eval, test"):
        webshop.tasks("valid")
    with pytest.raises(IndexError):
        tasks[len(tasks)]


@pytest.mark.parametrize(
    ("scheme", "goals", "sizes"),
    [
        ("paper", 3000, {"train": 1500, "eval": 1000, "test": 500}),
        ("paper", 1500, {"train": 1200, "eval": 150, "test": 150}),  # too few: tenths
        ("verl", 3000, {"train": 2500, "test": 500}),
        ("verl", 13, {"train": 12, "test": 1}),
    ],
)
def test_split_sizes(scheme: Any, goals: int, sizes: dict[str, int]) -> None:
    import numpy as np

    from empg_cli.benchmarks.webshop.splits import split_goals

    split = split_goals(scheme, np.zeros(goals, dtype=np.int32), np.zeros(1, dtype=np.uint8))
    assert {name: len(indices) for name, indices in split.items()} == sizes
    assert sorted(index for indices in split.values() for index in indices) == list(range(goals))


def test_split_by_product_shares_no_product() -> None:
    benchmark = make(split_scheme="by_product")
    goals = benchmark.shop.goals
    products = [{goals[task.data].asin for task in benchmark.tasks(split)} for split in benchmark.splits]
    assert sum(map(len, products)) == len(set().union(*products))
    assert sum(len(benchmark.tasks(split)) for split in benchmark.splits) == len(goals)
    with pytest.raises(DataError, match=r"at least 10 goals|without goals"):
        make(split_scheme="by_product", goals="human", num_products=12)


def test_reward_of_success(webshop: WebShopBenchmark) -> None:
    task = next(task for task in webshop.tasks("train") if webshop.shop.goals[task.data].options)
    solved = play_expert(webshop, task)
    assert (solved.reward, solved.success, solved.score, solved.done) == (10.0, True, 1.0, True)
    assert solved.info == {"total": 1.0, "r_type": 1.0, "r_attributes": 1.0, "r_options": 1.0, "r_price": 1.0}
    missed = play_expert(webshop, task, skip_options=True)
    assert (missed.reward, missed.success, missed.done) == (0.0, False, True)
    assert 0.0 < missed.score < 1.0
    assert missed.info["r_options"] == 0.0


def test_reward_of_score() -> None:
    benchmark = make(reward="score")
    task = next(task for task in benchmark.tasks("train") if benchmark.shop.goals[task.data].options)
    assert play_expert(benchmark, task).reward == 1.0
    missed = play_expert(benchmark, task, skip_options=True)
    assert missed.reward == missed.score > 0.0


def test_the_step_limit_counts_refused_actions() -> None:
    benchmark = make(max_steps=3)
    env = benchmark.make_env(benchmark.tasks("test")[0])
    opening = env.reset()
    results = [env.step(action) for action in ("nonsense", "search[shoes]", "click[no such thing]")]
    assert [result.valid for result in results] == [False, True, False]
    assert [result.done for result in results] == [False, False, True]
    assert results[0].text == opening.text
    assert (results[-1].success, results[-1].score, results[-1].reward) == (False, 0.0, 0.0)
    late = env.step("search[lamp]")
    assert (late.valid, late.done, late.text, late.actions) == (False, True, results[-1].text, results[-1].actions)
    assert env.reset() == opening


def test_buying_with_the_last_step_counts() -> None:
    benchmark = make(max_steps=3)
    bare = next(task for task in benchmark.tasks("train") if not benchmark.shop.goals[task.data].options)
    assert play_expert(benchmark, bare).success  # search, item, buy


@pytest.mark.parametrize(
    "action",
    [
        *("", "search", "search[]", "SEARCH[x]", "search[two\nlines]", "click[b000000000]", "click[search]"),
        *("click[" + "a" * 10_000 + "]", "[" * 10_000, "x" * 10_000, "\x00\x07\x1b[2J", "click[\ud800]", "🛒"),
    ],
)
def test_actions_that_mean_nothing(webshop: WebShopBenchmark, action: str) -> None:
    env = webshop.make_env(webshop.tasks("test")[0])
    opening = env.reset()
    result = env.step(action)
    assert (result.valid, result.done, result.text, result.actions) == (False, False, opening.text, opening.actions)


@pytest.mark.parametrize(
    "words", ["a" * 10_000, "lamp " * 2_000, "\x00\x07", "\ud800", "<r>", "<q> bar stools", "<a> x", "]["]
)
def test_odd_searches_are_searches(webshop: WebShopBenchmark, words: str) -> None:
    """The official server's debug operators (<r>, <q>, <c>, <a>) are plain words."""
    env = webshop.make_env(webshop.tasks("test")[0])
    env.reset()
    result = env.step(f"search[{words}]")
    assert result.valid
    assert "Total results" in result.text


def test_debug_operators_find_nothing_special(webshop: WebShopBenchmark) -> None:
    shop = webshop.shop
    assert shop.search("<q> bar stools") == shop.search("q bar stools")
    assert shop.search("<r>") == []


def test_misuse_is_an_error_of_the_program(webshop: WebShopBenchmark) -> None:
    env = webshop.make_env(webshop.tasks("test")[0])
    with pytest.raises(RuntimeError, match="reset"):
        env.step("search[x]")
    with pytest.raises(TypeError, match="tasks"):
        webshop.make_env(Task("x", "y", "test", data="z"))


def test_rich_observations() -> None:
    benchmark = make(observation="text_rich")
    env = benchmark.make_env(benchmark.tasks("test")[0])
    assert env.reset().text.endswith("[button] Search [button_]\n")


def test_fingerprint(webshop: WebShopBenchmark) -> None:
    fingerprint = webshop.fingerprint()
    assert fingerprint["source"] == "generated"
    assert fingerprint["tasks"] == {split: len(webshop.tasks(split)) for split in webshop.splits}
    assert fingerprint["solvable"] == {"train": 1.0, "eval": 1.0, "test": 1.0}
    assert fingerprint["nouns"] == "words"
    assert make().fingerprint() == fingerprint
    assert make(shop_seed=1).fingerprint()["digest"] != fingerprint["digest"]
    human = make(goals="human").fingerprint()
    assert human["digest"] == fingerprint["digest"]
    assert human["goals"] == "human"


def test_without_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "_spacy_tagger", lambda: None)
    assert nouns.make_tagger("auto").name == "words"
    with pytest.raises(DataError, match="python -m spacy download"):
        make(nouns="spacy")


def test_spacy_tags_nouns() -> None:
    pytest.importorskip("spacy", reason="benchmark.nouns=spacy needs spaCy")
    if nouns._spacy_tagger() is None:
        pytest.skip("benchmark.nouns=spacy needs an English model: python -m spacy download en_core_web_sm")
    tagger = nouns.make_tagger("spacy")
    assert tagger.name.startswith("en_core_web")
    assert {"desk", "lamp", "shade"} <= set(tagger.nouns("Desk Lamp with a soft shade"))


def test_settings_of_the_preset_are_valid() -> None:
    node = TypeAdapter[Any](Benchmark).validate_python(settings())
    assert (node.name, node.max_steps, node.success_reward) == ("webshop", 15, 10.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "eval", "split_scheme": "verl"}, "must be train or test when split_scheme=verl"),
        ({"split": "valid_seen"}, "'train', 'eval' or 'test'"),
        ({"num_products": 3}, "greater than or equal to 10"),
        ({"task_types": ["x"]}, "Extra inputs"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter[Any](Benchmark).validate_python(settings(**changes))
