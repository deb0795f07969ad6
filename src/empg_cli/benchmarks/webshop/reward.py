"""WebShop's score of a purchase (Yao et al. 2022, arXiv 2207.01206, section 3.2, as the official code computes it).

score = r_type * (attributes met + options met + price met) / (attributes + options + 1)

The official code has holes that move results and are kept: a colour such as `black2626` can never be met by its own
product in a synthetic goal, and `large` meets `x-large`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz import fuzz

from empg_cli.benchmarks.webshop.catalog import Product
from empg_cli.benchmarks.webshop.goals import Goal, Option


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COLOURS = _words(
    """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel
    camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry
    cream crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green
    grey heather indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot
    midnight mint mocha multicolor mushroom mustard natural navy nude olive orange peach pewter pink plum purple
    rainbow red rose royal rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan
    taupe teal tiger turquoise violet walnut wheat white wine yellow
    """
)
"""WebShop's colour words (facts from its code, MIT, Princeton NLP), in the order in which they are tried."""

_SAME = 85
"""Texts with a token_set_ratio above this mean the same."""
_NOT_WORD = re.compile(r"[\W_]+")
_LATIN_1 = dict.fromkeys(range(128, 256))  # thefuzz drops these letters and keeps other non-ASCII ones


@dataclass(frozen=True, slots=True)
class Score:
    total: float
    """0 to 1; 1 is success."""
    r_type: float
    """1 right kind of product, 0.5 doubtful, 0.1 or 0 wrong."""
    r_attributes: float
    """Share of the wanted attributes that the product has."""
    r_options: float
    """Share of the wanted options that were chosen; 1 when none is wanted."""
    r_price: float
    """1 if the price is within the ceiling, else 0."""


class Reward:
    """The scoring rule with one noun tagger; remembers the nouns of recent titles."""

    def __init__(self, nouns: Callable[[str], list[str]]) -> None:
        self._nouns = lru_cache(maxsize=1 << 14)(nouns)

    def __call__(self, bought: Product, price: float, chosen: Iterable[str], goal: Goal) -> Score:
        """Args: price, what was paid; chosen, option values in any order."""
        attributes = attributes_met(bought, goal.attributes)
        options = options_met(chosen, goal.options)
        within_budget = price <= goal.price_ceiling
        kind = self.type_score(bought, goal)
        parts = len(goal.attributes) + len(goal.options) + 1
        return Score(
            total=(attributes + options + within_budget) / parts * kind,
            r_type=kind,
            r_attributes=attributes / len(goal.attributes) if goal.attributes else 1.0,
            r_options=options / len(goal.options) if goal.options else 1.0,
            r_price=float(within_budget),
        )

    def type_score(self, bought: Product, goal: Goal) -> float:
        """r_type: by the share of the goal title's nouns that the bought title has, then by category.

        Titles without a common noun score 0 whatever the category says.
        """
        wanted = self._nouns(goal.title)
        found = set(self._nouns(bought.title))
        overlap = (
            len(found.intersection(wanted)) / len(wanted) if wanted else 0.2
        )  # repeats count in the denominator only
        if overlap < 0.1:
            return 0.1 if overlap > 0 else 0.0
        same_category = len(_crumbs(bought.breadcrumbs) & _crumbs(goal.breadcrumbs)) >= 2
        return 1.0 if bought.query == goal.query or same_category or overlap > 0.2 else 0.5


def _crumbs(breadcrumbs: str) -> set[str]:
    return {crumb.strip() for crumb in breadcrumbs.split("›")}


def attributes_met(bought: Product, wanted: Iterable[str]) -> int:
    """Wanted attributes that an attribute of the product resembles, or that stand in its texts literally."""
    texts = (bought.title.lower(), " ".join(bought.bullets).lower(), bought.description.lower())
    return sum(
        any(token_set_ratio(has, attribute) > _SAME for has in bought.attributes)
        or any(attribute in text for text in texts)
        for attribute in wanted
    )


def options_met(chosen: Iterable[str], wanted: Iterable[Option]) -> int:
    """Wanted options that one of the chosen values resembles."""
    have = [_colour_of_text(value) for value in chosen]
    return sum(any(token_set_ratio(value, want) > _SAME for value in have) for want in map(_comparable, wanted))


def _comparable(option: Option) -> str:
    """A wanted option as the chosen values are compared with it.

    The official code hands synthetic options over as (name, value) tuples: such a one has a colour only if its value
    (or name) IS a colour word, and is compared by the tuple's repr otherwise, name and all.
    """
    if isinstance(option, str):
        return _colour_of_text(option)
    return next((colour for colour in COLOURS if colour in option), str(option))


def _colour_of_text(text: str) -> str:
    """The first colour word that occurs anywhere in the text stands for the whole of it."""
    return next((colour for colour in COLOURS if colour in text), text)


def token_set_ratio(left: str, right: str) -> int:
    """thefuzz's similarity of two texts as sets of words, 0 to 100; 100 if the words of one are all among the other's.

    Rounded to an integer like thefuzz's, so `> 85` means at least 85.5 before rounding. 0 if one has no words.
    """
    return round(fuzz.token_set_ratio(left, right, processor=_clean))


def _clean(text: str) -> str:
    # Not rapidfuzz's default_process: its tables miss letters that are newer than Unicode 13.
    return _NOT_WORD.sub(" ", text.translate(_LATIN_1)).lower()
