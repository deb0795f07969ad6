"""Products as the shop holds them, the text that the search engine indexes, and one line of JSON per product."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

NO_PRICE = 100.0
"""What WebShop charges for a product that lists no price."""

RATING = "N.A."
"""WebShop never loads its reviews, so every product is unrated."""


@dataclass(frozen=True, slots=True)
class HumanInstruction:
    """An instruction that a person wrote for a product."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    """Wanted option values, without the names of their groups."""


@dataclass(frozen=True, slots=True)
class Product:
    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    query: str
    """The shop's own list that the product came from, e.g. `console tables`."""
    department: str
    """beauty, electronics, fashion, garden or grocery."""
    breadcrumbs: str
    """Category path, joined by ` › `."""
    prices: tuple[float, ...]
    """One price in dollars, or the two ends of a range."""
    options: Mapping[str, tuple[str, ...]]
    """Values by option group, e.g. `color: red, blue`; in page order."""
    attributes: tuple[str, ...]
    """What the reward knows about the product; never indexed and, by default, never shown."""
    instruction: str | None = None
    """Opening of the synthetic instructions; None: the product is nobody's goal."""
    instruction_attributes: tuple[str, ...] = ()
    human: tuple[HumanInstruction, ...] = ()

    @property
    def price_tag(self) -> str:
        return " to ".join(f"${price}" for price in self.prices)

    def draw_price(self, rng: random.Random) -> float:
        """The price charged; a range is settled by one draw, a single price uses none."""
        return self.prices[0] if len(self.prices) == 1 else rng.uniform(*self.prices)

    def index_text(self) -> str:
        """What the search engine sees: title, description, first bullet, options; no attributes, no category."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        first_bullet = self.bullets[0] if self.bullets else ""
        return " ".join((self.title, self.description, first_bullet, options)).lower()


class Catalog(Protocol):
    """Products by row, in memory or on disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> Product: ...


def encode(product: Product) -> bytes:
    """One line of JSON. The same product always gives the same bytes, so digests may be taken over it."""
    human = [[said.text, said.attributes, said.options] for said in product.human]
    row = [
        product.asin,
        product.title,
        product.description,
        product.bullets,
        product.query,
        product.department,
        product.breadcrumbs,
        product.prices,
        list(product.options.items()),
        product.attributes,
        product.instruction,
        product.instruction_attributes,
        human,
    ]
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def decode(line: bytes) -> Product:
    (asin, title, description, bullets, query, department, breadcrumbs, prices, options, attributes, *goal) = (
        json.loads(line.decode("utf-8", "surrogatepass"))
    )
    instruction, instruction_attributes, human = goal
    return Product(
        asin=asin,
        title=title,
        description=description,
        bullets=tuple(bullets),
        query=query,
        department=department,
        breadcrumbs=breadcrumbs,
        prices=tuple(prices),
        options={name: tuple(values) for name, values in options},
        attributes=tuple(attributes),
        instruction=instruction,
        instruction_attributes=tuple(instruction_attributes),
        human=tuple(_human(*said) for said in human),
    )


def _human(text: str, attributes: Sequence[str], options: Sequence[str]) -> HumanInstruction:
    return HumanInstruction(text, tuple(attributes), tuple(options))
