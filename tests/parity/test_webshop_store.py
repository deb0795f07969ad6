"""A compiled catalogue is the same shop as the one in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from empg_cli.benchmarks.webshop.expert import expert_actions
from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.benchmarks.webshop.goals import GOAL_KINDS, GoalKind
from empg_cli.benchmarks.webshop.load import compile_webshop
from empg_cli.benchmarks.webshop.nouns import make_tagger
from empg_cli.benchmarks.webshop.session import ShopSession
from empg_cli.benchmarks.webshop.shop import open_in_memory
from empg_cli.benchmarks.webshop.store import open_store
from empg_cli.benchmarks.webshop.views import text

PRODUCTS = 400


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("webshop") / "store"
    seen: list[int] = []
    manifest = compile_webshop(
        None,
        str(folder),
        official_set="small",
        num_products=PRODUCTS,
        shop_seed=2,
        price_seed=9,
        progress=seen.append,
    )
    assert seen == list(range(1, PRODUCTS + 1))
    assert (manifest["products"], manifest["source"], manifest["price_seed"]) == (PRODUCTS, "generated", 9)
    assert [path.name for path in folder.parent.iterdir()] == ["store"]  # nothing half-written is left
    return folder


@pytest.mark.parametrize("kind", GOAL_KINDS)
def test_the_same_shop(store: Path, kind: GoalKind) -> None:
    tagger = make_tagger("words")
    memory = open_in_memory(generate(PRODUCTS, seed=2), kind, tagger, price_seed=9)
    disk, source = open_store(store, kind, tagger, price_seed=9)
    assert source == "generated"
    assert disk.digest == memory.digest
    assert list(disk.products) == list(memory.products)
    assert list(disk.prices) == list(memory.prices)
    assert list(disk.buckets) == list(memory.buckets)
    assert list(disk.goals) == list(memory.goals)
    queries = [product.title for product in memory.products] + ["", "zzz unknown", "the", "emoji 😀 wood"]
    assert [disk.search(query) for query in queries] == [memory.search(query) for query in queries]
    for index in range(0, len(memory.goals), 40):
        ours, theirs = ShopSession(memory, memory.goals[index]), ShopSession(disk, disk.goals[index])
        for action in expert_actions(ours):
            assert ours.act(action)
            assert theirs.act(action)
            assert text(ours) == text(theirs)
        assert ours.score == theirs.score
