"""Goals: which product, attributes, options and price ceiling an instruction asks for, in WebShop's fixed order.

A catalogue of 100,000 products has 432,000 goals, so a goal is three numbers (product, variant, ceiling) until somebody
asks for it.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from empg_cli.benchmarks.webshop.catalog import Catalog, Product

GoalKind = Literal["synthetic", "human"]
GOAL_KINDS: tuple[GoalKind, ...] = ("synthetic", "human")

SHUFFLE_SEED = 233
"""The official server's; it fixes the order of goals and with it the splits."""

NO_CEILING = 1_000_000.0
"""The ceiling of a product too dear for the highest one; the instruction then names none."""

_CEILINGS = [10.0 * n for n in range(1, 100)]
_CEILINGS_IN_REACH = 4

GOAL_ROW = np.dtype([("product", np.int32), ("variant", np.int32), ("ceiling", np.float64)])

Option = tuple[str, str] | str
"""Synthetic goals want (name, value) pairs, human ones bare values; the reward treats them differently."""


@dataclass(frozen=True, slots=True)
class Goal:
    index: int
    """Place in the fixed order."""
    asin: str
    title: str
    department: str
    query: str
    breadcrumbs: str
    instruction: str
    """The whole text that the agent reads."""
    attributes: tuple[str, ...]
    options: tuple[Option, ...]
    price_ceiling: float

    @property
    def option_values(self) -> tuple[str, ...]:
        return tuple(option if isinstance(option, str) else option[1] for option in self.options)


class GoalSource(NamedTuple):
    """Goals of one product that share a price ceiling: `variants` of them from number `first` on."""

    product: int
    first: int
    variants: int


def goal_sources(row: int, product: Product, kind: GoalKind) -> Iterator[GoalSource]:
    """Synthetic: one source, one variant per combination of options. Human: one source per instruction."""
    if kind == "human":
        for entry, said in enumerate(product.human):
            if said.attributes:
                yield GoalSource(row, entry, 1)
    elif product.instruction is not None:
        yield GoalSource(row, 0, math.prod(len(values) for values in product.options.values()))


def draw_prices(products: Iterable[Product], rng: random.Random) -> list[float]:
    """What each product costs. The official server draws ranges anew at each start; ours are fixed by the seed."""
    return [product.draw_price(rng) for product in products]


def make_table(sources: Sequence[GoalSource], prices: Sequence[float], rng: random.Random) -> NDArray[Any]:
    """GOAL_ROW records of all goals in their fixed order; `rng` draws one ceiling per source, in catalogue order."""
    ceilings = [draw_ceiling(prices[source.product], rng) for source in sources]
    total = sum(source.variants for source in sources)
    table = np.empty(total, dtype=GOAL_ROW)
    counts = np.array([source.variants for source in sources], dtype=np.int64)
    table["product"] = np.repeat(np.array([source.product for source in sources], dtype=np.int32), counts)
    table["ceiling"] = np.repeat(np.array(ceilings, dtype=np.float64), counts)
    variants = (range(source.first, source.first + source.variants) for source in sources)
    table["variant"] = np.fromiter(itertools.chain.from_iterable(variants), dtype=np.int32, count=total)
    order = list(range(total))
    random.Random(SHUFFLE_SEED).shuffle(order)
    return table[np.array(order, dtype=np.int64)]


def draw_ceiling(price: float, rng: random.Random) -> float:
    """The larger of two of the next four multiples of ten above the price."""
    within_reach = _CEILINGS[bisect_right(_CEILINGS, price) :][:_CEILINGS_IN_REACH]
    return max(rng.sample(within_reach, 2)) if len(within_reach) >= 2 else NO_CEILING


class GoalList:
    """Goals made on demand from a table and the products, both possibly on disk."""

    def __init__(self, products: Catalog, table: NDArray[Any], kind: GoalKind) -> None:
        self._products = products
        self.table = table
        self.kind: GoalKind = kind

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Goal:
        if not 0 <= index < len(self.table):
            raise IndexError(f"goal {index} of {len(self.table)}")
        row = self.table[index]
        product, variant, ceiling = self._products[int(row["product"])], int(row["variant"]), float(row["ceiling"])
        make = _human_wish if self.kind == "human" else _synthetic_wish
        text, attributes, options = make(product, variant)
        return Goal(
            index=index,
            asin=product.asin,
            title=product.title,
            department=product.department,
            query=product.query,
            breadcrumbs=product.breadcrumbs,
            instruction=text if ceiling == NO_CEILING else f"{text}, and price lower than {ceiling:.2f} dollars",
            attributes=attributes,
            options=options,
            price_ceiling=ceiling,
        )


def _human_wish(product: Product, entry: int) -> tuple[str, tuple[str, ...], tuple[Option, ...]]:
    said = product.human[entry]
    return said.text.strip("."), said.attributes, said.options


def _synthetic_wish(product: Product, combination: int) -> tuple[str, tuple[str, ...], tuple[Option, ...]]:
    """Combinations count through the option groups by name, the last group fastest."""
    assert product.instruction is not None
    options: list[tuple[str, str]] = []
    for name in sorted(product.options, reverse=True):
        combination, place = divmod(combination, len(product.options[name]))
        options.insert(0, (name, product.options[name][place]))
    wanted = ", and ".join(f"{name}: {value}" for name, value in options)
    text = f"{product.instruction} with {wanted}" if wanted else product.instruction
    return text, product.instruction_attributes, tuple(options)
