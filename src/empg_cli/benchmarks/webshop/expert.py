"""A shopper that knows the goal's product: for demonstrations, tests, and as the ceiling of what can be reached.

It acts through the same pages as an agent and reads nothing but them and the goal, so its episodes are legal
demonstrations. It looks at the page anew for each action, so it recovers from actions that somebody else puts in.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from empg_cli.benchmarks.webshop import actions, pages
from empg_cli.benchmarks.webshop.goals import Goal
from empg_cli.benchmarks.webshop.pages import PageKind
from empg_cli.benchmarks.webshop.session import ShopSession

_DETOUR_SHARE = 0.15


def expert_actions(session: ShopSession, rng: random.Random | None = None) -> Iterator[str]:
    """Actions until the purchase, or until no query of `queries` lists the product.

    Args:
        rng: None plays the shortest way; otherwise some episodes first read the description or the features.
    """
    detour = rng.choice(("description", "features")) if rng and rng.random() < _DETOUR_SHARE else None
    for query in dict.fromkeys(queries(session.goal)):
        gave_up = False
        while not gave_up and not session.is_done:
            action, detour, gave_up = _next_action(session, query, detour)
            yield action


def queries(goal: Goal) -> list[str]:
    """From what a shopper would type to what only the answer gives away."""
    told = goal.instruction.lower().partition(", and price lower than")[0]
    named = [f"{option[0]}: {option[1]}" for option in goal.options if not isinstance(option, str)]
    if named:
        told = told.removesuffix(" with " + ", and ".join(named))
    told = told.removeprefix("find me ").strip()
    values = " ".join(goal.option_values)
    return [told, f"{told} {values}", f"{goal.query} {' '.join(goal.attributes)}", goal.title.lower()]


def _next_action(session: ShopSession, query: str, detour: str | None) -> tuple[str, str | None, bool]:
    """Action, detour still to be made, and whether this query is given up."""
    page, wanted = session.page, session.goal.asin.lower()
    match page.kind:
        case PageKind.START:
            return actions.search(query), detour, False
        case PageKind.RESULTS if wanted in page.targets:
            return actions.click(wanted), detour, False
        case PageKind.RESULTS if session.keywords != _typed(query):
            return actions.click(pages.BACK), detour, False
        case PageKind.RESULTS if session.number * pages.PER_PAGE < len(session.found):
            return actions.click(pages.NEXT), detour, False
        case PageKind.RESULTS:
            return actions.click(pages.BACK), detour, True
        case PageKind.ITEM if session.shop.products[session.row].asin == session.goal.asin:
            if detour:
                return actions.click(detour), None, False
            return actions.click(_unchosen_option(session) or pages.BUY), None, False
        case PageKind.DETAIL:
            return actions.click(pages.PREVIOUS), detour, False
        case _:
            return actions.click(pages.BACK), detour, False


def _unchosen_option(session: ShopSession) -> str | None:
    """The next wanted value to click, in page order; None when all that can be chosen are.

    A value listed in two groups belongs to the last one, so the same value of another group cannot be chosen.
    """
    product = session.shop.products[session.row]
    by_group: dict[str, str] = {}
    for option in session.goal.options:
        name, value = ("", option) if isinstance(option, str) else option
        target = session.page.targets.get(value)
        if target and target.role == "option" and name in ("", target.group) and actions.is_clickable(value):
            by_group.setdefault(target.group, value)
    return next((v for group in product.options if (v := by_group.get(group)) and session.chosen.get(group) != v), None)


def _typed(query: str) -> str:
    """The keywords that the shop keeps of a search."""
    parsed = actions.parse(actions.search(query))
    return parsed[1] if parsed else query
