"""One shopper's way through the pages: WebShop's state machine. Holds a page and a few words, never a catalogue."""

from __future__ import annotations

import json

from empg_cli.benchmarks.webshop import actions, pages
from empg_cli.benchmarks.webshop.catalog import Product
from empg_cli.benchmarks.webshop.goals import Goal
from empg_cli.benchmarks.webshop.pages import Page, PageKind
from empg_cli.benchmarks.webshop.reward import Score
from empg_cli.benchmarks.webshop.shop import Shop


class ShopSession:
    """Starts on the start page and ends with a purchase."""

    page: Page
    keywords: str
    """Of the last search."""
    found: list[int]
    """Catalogue rows that the last search listed."""
    number: int
    """Page of the results, from 1."""
    row: int
    """Catalogue row of the item on view; -1: none."""
    chosen: dict[str, str]
    """Option group to value."""
    visited: set[str]
    """ASINs opened since the start page."""
    score: Score | None
    """Of the purchase; None until then."""

    def __init__(self, shop: Shop, goal: Goal) -> None:
        self.shop = shop
        self.goal = goal
        self.restart()

    def restart(self) -> None:
        self.score = None
        self._start()

    @property
    def is_done(self) -> bool:
        return self.score is not None

    def act(self, action: str) -> bool:
        """Take an action; False if it means nothing here, and then nothing has changed."""
        parsed = actions.parse(action)
        if parsed is None or self.is_done:
            return False
        match parsed:
            case ("search", words):  # on every page: the official server does not ask for the search bar
                self.keywords = words
                self.found = self.shop.search(words)
                self._show_results(1)
            case ("click", text) if text in self.page.targets and text != "search":
                self._click(text)
            case _:
                return False
        return True

    def _click(self, text: str) -> None:
        """Buttons win over links and options of the same text, as the official server compares them first."""
        here = self.page.kind
        match text:
            case pages.BUY:
                self._buy()
            case pages.BACK:
                self._start()
            case pages.NEXT if here is PageKind.RESULTS:
                self._show_results(self.number + 1)
            case pages.PREVIOUS if here is PageKind.RESULTS:
                self._show_results(self.number - 1)
            case pages.PREVIOUS if here is PageKind.ITEM:
                self._show_results(self.number)
            case pages.PREVIOUS if here is PageKind.DETAIL:
                self._show_item()
            case "description" | "features" | "reviews" | "attributes":
                self.page = pages.detail_page(self.goal.instruction, self._product, text)
            case _:
                target = self.page.targets[text]
                if target.role == "link":
                    self.row = target.product
                    self.visited.add(self._product.asin)
                elif target.role == "option":
                    self.chosen[target.group] = text
                self._show_item()

    def _start(self) -> None:
        """Back to the start page: everything is forgotten."""
        self.keywords = ""
        self.found = []
        self.number = 1
        self.row = -1
        self.chosen = {}
        self.visited = set()
        self.page = pages.start_page(self.goal.instruction)

    def _show_results(self, number: int) -> None:
        """The list again; the item and its options are forgotten."""
        self.number = number
        self.row = -1
        self.chosen = {}
        self.page = pages.results_page(self.goal.instruction, self.found, number, self.shop.products)

    def _show_item(self) -> None:
        self.page = pages.item_page(self.goal.instruction, self._product, show_attributes=self.shop.show_attributes)

    def _buy(self) -> None:
        product = self._product
        self.score = self.shop.reward(product, self.shop.prices[self.row], self.chosen.values(), self.goal)
        self.page = pages.end_page(product, self.chosen, self.score.total)

    @property
    def _product(self) -> Product:
        return self.shop.products[self.row]

    @property
    def address(self) -> str:
        """The part of the item's URL by which the official page decides which options look chosen."""
        keywords = "+".join(self.keywords.split(" "))
        return f"{self._product.asin}/{keywords}/{self.number}/{json.dumps(self.chosen)}"
