"""WebShop's five pages, as segments in reading order and the targets that a click can reach."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from empg_cli.benchmarks.webshop import actions
from empg_cli.benchmarks.webshop.catalog import RATING, Catalog, Product

PER_PAGE = 10

BACK, PREVIOUS, NEXT, BUY = "back to search", "< prev", "next >", "buy now"
DETAILS = ("description", "features", "reviews")
ATTRIBUTES = "attributes"
"""A further sub-page that shows what the reward looks at; the official server hides it unless told otherwise."""


class PageKind(StrEnum):
    START = "start"
    RESULTS = "results"
    ITEM = "item"
    DETAIL = "detail"
    """Description, features, reviews or attributes of an item."""
    END = "end"


Role = Literal["text", "button", "option", "link"]


class Segment(NamedTuple):
    role: Role
    text: str


class Target(NamedTuple):
    """What a click means: a button, the link to a product, or a value of an option group."""

    role: Role
    group: str = ""
    """Option group; options only."""
    product: int = -1
    """Catalogue row; links only."""


@dataclass(frozen=True, slots=True)
class Page:
    kind: PageKind
    segments: tuple[Segment, ...]
    targets: Mapping[str, Target]
    """By lower-cased text. A text that occurs twice has the last one's target, as on the official server."""

    @property
    def has_search_bar(self) -> bool:
        return self.kind is PageKind.START

    @property
    def actions(self) -> tuple[str, ...]:
        """Every action that this page offers and that has an effect."""
        offered = (actions.SEARCH_TEMPLATE,) if self.has_search_bar else ()
        return offered + tuple(actions.click(text) for text in self.targets if actions.is_clickable(text))


class _Builder:
    """Collects a page. Targets come in the official order: buttons, then product links, then options."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self._buttons: dict[str, Target] = {}
        self._links: dict[str, Target] = {}
        self._options: list[tuple[str, Target]] = []

    def text(self, *texts: str) -> None:
        self.segments += [Segment("text", text) for text in texts if text]

    def button(self, *labels: str) -> None:
        for label in labels:
            self.segments.append(Segment("button", label))
            self._buttons[label.lower()] = Target("button")

    def link(self, asin: str, product: int) -> None:
        self.segments.append(Segment("link", asin))
        self._links[asin.lower()] = Target("link", product=product)

    def options(self, group: str, values: Sequence[str]) -> None:
        self.text(group)
        for value in values:
            if value:
                self.segments.append(Segment("option", value))
            self._options.append((value, Target("option", group=group)))

    def page(self, kind: PageKind) -> Page:
        return Page(kind, tuple(self.segments), {**self._buttons, **self._links, **dict(self._options)})


def start_page(instruction: str) -> Page:
    build = _Builder()
    build.text("WebShop", "Instruction: ", instruction)
    build.button("Search")
    return build.page(PageKind.START)


def results_page(instruction: str, found: Sequence[int], number: int, products: Catalog) -> Page:
    """Page `number` (from 1) of the found catalogue rows; past the last one it lists nothing."""
    build = _header(instruction)
    build.text(f"Page {number} (Total results: {len(found)})")
    if number > 1:
        build.button("< Prev")
    build.button("Next >")
    for row in found[(number - 1) * PER_PAGE : number * PER_PAGE]:
        product = products[row]
        build.link(product.asin, row)
        build.text(product.title, product.price_tag)
    return build.page(PageKind.RESULTS)


def item_page(instruction: str, product: Product, *, show_attributes: bool) -> Page:
    build = _header(instruction)
    build.button("< Prev")
    for group, values in product.options.items():
        build.options(group, values)
    build.text(product.title, f"Price: {product.price_tag}", f"Rating: {RATING}")
    build.button(*(label.capitalize() for label in DETAILS))
    if show_attributes:
        build.button(ATTRIBUTES.capitalize())
    build.button("Buy Now")
    return build.page(PageKind.ITEM)


def detail_page(instruction: str, product: Product, detail: str) -> Page:
    build = _header(instruction)
    build.button("< Prev")
    match detail:
        case "description":
            build.text(product.description)
        case "features":
            build.text(*(f" {bullet}" for bullet in product.bullets))
        case "attributes":
            build.text(*(f" {attribute}" for attribute in product.attributes))
            build.text(product.department, product.query, product.breadcrumbs)
        case _:
            pass  # reviews: WebShop loads none
    return build.page(PageKind.DETAIL)


def end_page(product: Product, chosen: Mapping[str, str], score: float) -> Page:
    build = _Builder()
    build.text("Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)")
    build.text("Purchased", "asin", product.asin, "options", _script_json(chosen))
    build.text("attrs", "None", "category", "None", "query", "None", "product category", "None")
    # "instuction" is the official page's spelling
    build.text(
        "Target", "asin", "options", "attrs", "price upper", "instuction text", "category", "product category", "query"
    )
    build.text("Goal ", "None", "Reward", "Your score (min 0.0, max 1.0)", str(score), "Reward Details ", "None")
    return build.page(PageKind.END)


def _header(instruction: str) -> _Builder:
    build = _Builder()
    build.text("Instruction:", instruction)
    build.button("Back to Search")
    return build


def _script_json(chosen: Mapping[str, str]) -> str:
    """JSON as the template engine writes it into a page, with < > & ' escaped."""
    text = json.dumps(dict(chosen), sort_keys=True)
    for sign, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")):
        text = text.replace(sign, escaped)
    return text
