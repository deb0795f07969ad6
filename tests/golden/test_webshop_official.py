"""The official small set: goals, order, splits, search results and the expert, against counts and digests that were
taken when search, goals, rewards and pages had been found equal to the official code and to Lucene.

Set EMPG_TEST_DATA to a folder that holds `webshop/` with WebShop's items_shuffle_1000, items_ins_v2_1000 and
items_human_ins (.json or .json.gz).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.webshop.benchmark import WebShopBenchmark

DATA = Path(os.environ.get("EMPG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "webshop"

pytestmark = pytest.mark.skipif(
    not any(DATA.glob("items_shuffle_1000.json*")),
    reason="needs WebShop's official small set, which may not be redistributed: set EMPG_TEST_DATA",
)


def official(**changes: Any) -> WebShopBenchmark:
    keys: dict[str, Any] = {
        "data_dir": str(DATA),
        "official_set": "small",
        "num_products": 1000,
        "shop_seed": 0,
        "price_seed": 0,
        "goals": "synthetic",
        "split_scheme": "paper",
        "nouns": "words",
        "observation": "text",
        "show_attributes": False,
        "max_steps": 15,
        "reward": "success",
        "success_reward": 10.0,
        "expert": "goal",
    }
    benchmark = make_benchmark("webshop", **(keys | changes))
    assert isinstance(benchmark, WebShopBenchmark)
    return benchmark


@pytest.fixture(scope="module")
def synthetic() -> WebShopBenchmark:
    return official()


@pytest.fixture(scope="module")
def human() -> WebShopBenchmark:
    return official(goals="human")


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_synthetic_goals(synthetic: WebShopBenchmark) -> None:
    goals = synthetic.shop.goals
    assert len(goals) == 6910
    # The price text is left out: the official server draws it anew at each start.
    assert digest(goal.instruction.partition(", and price lower")[0] for goal in goals) == "313e88234f40e307"
    assert digest(f"{goal.asin} {goal.attributes} {goal.options}" for goal in goals) == "fae3fb30f0cf902c"
    assert digest(goal.instruction for goal in goals) == "802458896663e37f"


def test_human_goals(human: WebShopBenchmark) -> None:
    goals = list(human.shop.goals)
    assert len(goals) == 13
    assert digest(goal.instruction.partition(", and price lower")[0] for goal in goals) == "51cb38fbe7949d33"
    with gzip.open(DATA / "human_goals.json.gz", "rt", encoding="utf-8") as file:
        published = set(json.load(file))  # all 12,087 of the full set, without apostrophes
    assert {goal.instruction.partition(", and price lower")[0].replace("'", "") for goal in goals} <= published


def test_splits(synthetic: WebShopBenchmark, human: WebShopBenchmark) -> None:
    assert {split: len(synthetic.tasks(split)) for split in synthetic.splits} == {
        "train": 5410,
        "eval": 1000,
        "test": 500,
    }
    assert [task.data for task in synthetic.tasks("test")] == list(range(500))
    assert synthetic.tasks("train")[0].data == 1500
    assert {split: len(human.tasks(split)) for split in human.splits} == {"train": 11, "eval": 1, "test": 1}


def test_splits_by_product_share_none() -> None:
    benchmark = official(split_scheme="by_product")
    goals = benchmark.shop.goals
    products = [{goals[task.data].asin for task in benchmark.tasks(split)} for split in benchmark.splits]
    assert sum(len(part) for part in products) == len(set().union(*products)) == 415


def test_search_results(synthetic: WebShopBenchmark) -> None:
    shop = synthetic.shop
    queries = [product.title for product in shop.products] + [goal.instruction for goal in list(shop.goals)[:500]]
    found = (" ".join(shop.products[row].asin for row in shop.search(query.lower())) for query in queries)
    assert digest(found) == "df2f8f435f1386c2"


def test_share_of_goals_that_can_be_solved(synthetic: WebShopBenchmark, human: WebShopBenchmark) -> None:
    solvable = sum(synthetic.shop.best_score(index) == 1.0 for index in range(6910))
    assert solvable == 6910 - 458  # colours such as `black2626` that no purchase can meet
    assert all(human.shop.best_score(index) == 1.0 for index in range(13))


def test_expert(synthetic: WebShopBenchmark) -> None:
    """2,500 of the goals, to be quick; scripts/bench/webshop_catalogue.py plays all 6,910: 92.9 % and 0.984."""
    results = []
    for split in ("test", "eval", "train"):
        for task in synthetic.tasks(split)[:1000]:
            env = synthetic.make_env(task)
            env.reset()
            last = next((result for result in map(env.step, synthetic.expert(env)) if result.done), None)
            results.append((last.success, last.score) if last else (False, 0.0))
    assert sum(success for success, _ in results) / len(results) >= 0.92
    assert sum(score for _, score in results) / len(results) >= 0.98
