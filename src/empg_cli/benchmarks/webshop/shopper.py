"""A shopper that decides by what an agent sees: for demonstrations that can be imitated.

It searches the wish with its options, opens affordable results in the shop's order, goes back when an item lacks a
wanted option, else chooses the options in page order and buys. It never knows the goal's product. It looks at the page
anew for each action, so it recovers from actions that somebody else puts in.
"""

from __future__ import annotations

from collections.abc import Iterator

from empg_cli.benchmarks.webshop import actions, pages
from empg_cli.benchmarks.webshop.env import WebShopEnv
from empg_cli.benchmarks.webshop.pages import PageKind
from empg_cli.benchmarks.webshop.reading import PageRead, Wish, read_page, read_wish, wanted

PAGES_PER_SEARCH = 2


def shopper_actions(env: WebShopEnv) -> Iterator[str]:
    """Actions until the purchase, or until no query brings anything new."""
    wish = read_wish(env.observation)
    shopper = _Shopper(wish)
    while not env.is_done and (action := shopper.decide(env)):
        yield action


def queries(wish: Wish) -> tuple[str, ...]:
    """With the options, which the search engine indexes, then without."""
    values = " ".join(value for _, value in wish.options)
    return tuple(dict.fromkeys((f"{wish.told} {values}".strip(), wish.told)))


class _Shopper:
    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._queries = list(queries(wish))
        self._turned_down: set[str] = set()
        self._opened = ""
        """The product that it opened itself; any other on view got there by somebody's mistake."""

    def decide(self, env: WebShopEnv) -> str | None:
        """The next action; None gives up."""
        page = read_page(env.observation)
        match page.kind:
            case PageKind.START:
                return actions.search(self._queries[0]) if self._queries else None
            case PageKind.RESULTS:
                return self._from_results(page, typed=env.session.keywords)
            case PageKind.ITEM:
                return self._on_item(page, env)
            case _:
                return actions.click(pages.PREVIOUS)

    def _from_results(self, page: PageRead, *, typed: str) -> str:
        if self._queries and typed != self._queries[0]:
            return actions.click(pages.BACK)
        for result in page.results:
            if result.asin not in self._turned_down and self._wish.affords(result.price_tag) != "over":
                self._opened = result.asin
                return actions.click(result.asin)
        if page.has_more and page.number < PAGES_PER_SEARCH:
            return actions.click(pages.NEXT)
        self._queries = self._queries[1:]
        return actions.click(pages.BACK)

    def _on_item(self, page: PageRead, env: WebShopEnv) -> str:
        """An agent knows which product it opened and which options it chose; the page itself does not say."""
        asin = env.session.shop.products[env.session.row].asin.lower()
        picks, missing = wanted(self._wish, page.options)
        if missing or asin != self._opened:
            if missing:
                self._turned_down.add(asin)
            return actions.click(pages.PREVIOUS)
        unchosen = (value for group, value in picks.items() if env.session.chosen.get(group) != value)
        return actions.click(next(unchosen, pages.BUY))
