"""Everything that sessions share: catalogue, search, goals, prices, reward. Made once, never copied, never changed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from empg_cli.benchmarks.webshop.bm25 import Index, build_index
from empg_cli.benchmarks.webshop.catalog import Catalog, Product, encode
from empg_cli.benchmarks.webshop.goals import GoalKind, GoalList, draw_prices, goal_sources, make_table
from empg_cli.benchmarks.webshop.nouns import NounTagger
from empg_cli.benchmarks.webshop.reward import Reward
from empg_cli.benchmarks.webshop.splits import bucket

MAX_RESULTS = 50
"""Products that a search lists at most."""


class Prices(Protocol):
    def __getitem__(self, row: int, /) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    products: Catalog
    prices: Prices
    """By catalogue row: what a purchase costs (a range of prices is settled here)."""
    buckets: NDArray[np.uint8]
    """By catalogue row: where `split_scheme=by_product` puts the product's goals."""
    index: Index
    goals: GoalList
    reward: Reward
    noun_tagger: str
    price_seed: int
    digest: str
    """Of the products, in order; the same for a catalogue in memory and on disk."""
    show_attributes: bool = False

    def search(self, words: str) -> list[int]:
        """Catalogue rows, best first."""
        return self.index.search(words, MAX_RESULTS)

    def best_score(self, goal_index: int) -> float:
        """Score of buying the goal's own product with all wanted options; below 1 for goals that nobody can solve."""
        goal = self.goals[goal_index]
        row = int(self.goals.table[goal_index]["product"])
        return self.reward(self.products[row], self.prices[row], goal.option_values, goal).total


def open_in_memory(
    products: Iterable[Product], goals: GoalKind, tagger: NounTagger, *, price_seed: int, show_attributes: bool = False
) -> Shop:
    """A shop of a few thousand products; larger ones are compiled once (see `store`) and then open at no cost."""
    catalog = list(products)
    rng = random.Random(price_seed)
    prices = draw_prices(catalog, rng)
    sources = [source for row, product in enumerate(catalog) for source in goal_sources(row, product, goals)]
    table: NDArray[Any] = make_table(sources, prices, rng)
    digest = hashlib.sha256()
    for product in catalog:
        digest.update(encode(product))
    return Shop(
        products=catalog,
        prices=prices,
        buckets=np.array([bucket(product.asin) for product in catalog], dtype=np.uint8),
        index=build_index((product.index_text() for product in catalog), [product.asin for product in catalog]),
        goals=GoalList(catalog, table, goals),
        reward=Reward(tagger.nouns),
        noun_tagger=tagger.name,
        price_seed=price_seed,
        digest=digest.hexdigest(),
        show_attributes=show_attributes,
    )
