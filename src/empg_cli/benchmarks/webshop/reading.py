"""What a shopper makes of WebShop's texts: the wish in an instruction, and what a page offers.

Uses nothing but observations, `text` or `text_rich`. Shared by the shopper that makes demonstrations and by the compact
wording, so that both see the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.webshop import actions, pages
from empg_cli.benchmarks.webshop.analyzer import analyze
from empg_cli.benchmarks.webshop.pages import PageKind
from empg_cli.benchmarks.webshop.views import SEPARATOR

BUTTONS = (pages.BACK, pages.PREVIOUS, pages.NEXT, pages.BUY, *pages.DETAILS, pages.ATTRIBUTES)

_CEILING = re.compile(r",? and price lower than (\d+(?:\.\d+)?) dollars\.?$")
_OPTION_TAIL = re.compile(r"[^:,]+: ")
_NEXT_OPTION = re.compile(r", and (?=[^:,]+: )")
_PAGE_NUMBER = re.compile(r"Page (\d+) \(Total results: (\d+)\)")
_RICH_BUTTON = re.compile(r"\[(?:clicked )?button\] (.*) \[(?:clicked )?button_\]")
_MONEY = re.compile(r"\$(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Wish:
    told: str
    """The instruction without its opening, options and price: what one would type into a search box."""
    options: tuple[tuple[str, str], ...]
    """(group, value) as a synthetic instruction names them; empty when they are told in prose or not at all."""
    ceiling: float
    """In dollars; infinite when none is named."""

    def affords(self, price_tag: str) -> str:
        """`ok`, `over`, or `maybe` for a price range that the ceiling falls into."""
        prices = [float(price) for price in _MONEY.findall(price_tag)] or [0.0]
        if min(prices) > self.ceiling:
            return "over"
        return "ok" if max(prices) <= self.ceiling else "maybe"

    def matches(self, text: str) -> int:
        """How many of the wish's search terms a text has."""
        return len(_terms(self.told) & _terms(text))


@dataclass(frozen=True, slots=True)
class Result:
    asin: str
    """Lower case, as it is clicked."""
    title: str
    price_tag: str


@dataclass(frozen=True)
class PageRead:
    kind: PageKind
    segments: tuple[str, ...]
    clickable: tuple[str, ...]
    """What a click can name, in the environment's order."""

    @cached_property
    def number(self) -> int:
        """Page of the results, from 1; 0 elsewhere."""
        return next((int(found[1]) for text in self.segments if (found := _PAGE_NUMBER.fullmatch(text))), 0)

    @cached_property
    def has_more(self) -> bool:
        """A further page of results would list something."""
        totals = (int(found[2]) for text in self.segments if (found := _PAGE_NUMBER.fullmatch(text)))
        return next(totals, 0) > self.number * pages.PER_PAGE

    @cached_property
    def results(self) -> tuple[Result, ...]:
        if self.kind is not PageKind.RESULTS:
            return ()
        links = {text for text in self.clickable if text not in BUTTONS}
        places = [place for place, text in enumerate(self.segments) if text.lower() in links]
        return tuple(Result(self.segments[at].lower(), *self.segments[at + 1 : at + 3]) for at in places)

    @cached_property
    def options(self) -> Mapping[str, tuple[str, ...]]:
        """Values by group, in page order; of an item only."""
        if self.kind is not PageKind.ITEM:
            return {}
        values = set(self.clickable) - set(BUTTONS)
        groups: dict[str, list[str]] = {}
        group = ""
        for text in self.segments[self.segments.index("< Prev") + 1 :]:
            if text in values:
                groups.setdefault(group, []).append(text)
            elif group and group not in groups:  # two texts without values: the options are over
                break
            else:
                group = text
        return {name: tuple(offered) for name, offered in groups.items()}

    @cached_property
    def title_and_price(self) -> tuple[str, str]:
        """Of an item."""
        at = next(place for place, text in enumerate(self.segments) if text.startswith("Price: "))
        return self.segments[at - 1], self.segments[at]


def read_page(observation: Observation) -> PageRead:
    segments = _segments(observation.text)
    parsed = (actions.parse(action) for action in observation.actions)
    clickable = tuple(words for name, words in filter(None, parsed) if name == "click")
    if actions.SEARCH_TEMPLATE in observation.actions:
        kind = PageKind.START
    elif any(_PAGE_NUMBER.fullmatch(text) for text in segments):
        kind = PageKind.RESULTS
    elif pages.BUY in clickable:
        kind = PageKind.ITEM
    else:
        kind = PageKind.DETAIL if clickable else PageKind.END
    return PageRead(kind, segments, clickable)


def read_wish(observation: Observation) -> Wish:
    """The wish in the instruction that every page but the last repeats."""
    segments = [text.strip() for text in _segments(observation.text)]
    instruction = segments[segments.index("Instruction:") + 1].lower()
    ceiling = _CEILING.search(instruction)
    if ceiling:
        instruction = instruction[: ceiling.start()]
    told, options = _split_options(instruction)
    return Wish(told.removeprefix("find me ").strip(), options, float(ceiling[1]) if ceiling else float("inf"))


def wanted(wish: Wish, options: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], list[str]]:
    """Values to choose on an item by group in page order, and the wanted values that it does not offer.

    Without named options, those are wanted whose values the instruction contains, the longest of each group.
    """
    if not wish.options:
        said = f" {re.sub(r'[^a-z0-9 ]', ' ', wish.told)} "
        found = {group: [v for v in values if f" {v} " in said] for group, values in options.items()}
        return {group: max(values, key=len) for group, values in found.items() if values}, []
    picks = {g: v for g, values in options.items() for name, v in wish.options if name == g and v in values}
    return picks, [value for _, value in wish.options if value not in picks.values()]


def _split_options(instruction: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """At the last ` with ` that a `name: ` follows."""
    for place in reversed([match.start() for match in re.finditer(" with ", instruction)]):
        tail = instruction[place + len(" with ") :]
        if _OPTION_TAIL.match(tail):
            named = (option.partition(": ") for option in _NEXT_OPTION.split(tail))
            return instruction[:place], tuple((name, value) for name, _, value in named)
    return instruction, ()


def _segments(text: str) -> tuple[str, ...]:
    if SEPARATOR in text:
        return tuple(text.split(SEPARATOR))
    lines = (line.strip() for line in text.split("\n"))
    kept = (line for line in lines if line and not line.startswith("You have clicked "))
    return tuple(found[1] if (found := _RICH_BUTTON.fullmatch(line)) else line for line in kept)


@lru_cache(maxsize=1 << 14)
def _terms(text: str) -> frozenset[str]:
    return frozenset(analyze(text))
