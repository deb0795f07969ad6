"""WebShop's score by hand, with a case for each of its quirks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from empg_cli.benchmarks.webshop.catalog import Product
from empg_cli.benchmarks.webshop.goals import Goal
from empg_cli.benchmarks.webshop.nouns import word_list_nouns
from empg_cli.benchmarks.webshop.reward import Reward, attributes_met, options_met, token_set_ratio

SHOE = Product(
    asin="B000000001",
    title="Rovex Running Sneakers Memory Foam",
    description="Sneakers that are machine washable, so they stay fresh.",
    bullets=("Rubber outsole", "For every day"),
    query="men's sneakers",
    department="fashion",
    breadcrumbs="Clothing › Men › Shoes",
    prices=(40.0,),
    options={"color": ("black", "red"), "size": ("8", "9")},
    attributes=("non slip", "arch support"),
)
GOAL = Goal(
    index=0,
    asin=SHOE.asin,
    title=SHOE.title,
    department="fashion",
    query=SHOE.query,
    breadcrumbs=SHOE.breadcrumbs,
    instruction="",
    attributes=("non slip", "arch support"),
    options=(("color", "black"), ("size", "9")),
    price_ceiling=50.0,
)


@pytest.fixture
def reward() -> Reward:
    return Reward(word_list_nouns)


def test_the_right_purchase_scores_one(reward: Reward) -> None:
    score = reward(SHOE, 40.0, ["black", "9"], GOAL)
    assert (score.total, score.r_type, score.r_attributes, score.r_options, score.r_price) == (1.0, 1.0, 1.0, 1.0, 1.0)


def test_each_part_counts_one(reward: Reward) -> None:
    # 2 attributes + 2 options + 1 price = 5 parts
    assert reward(SHOE, 40.0, ["black"], GOAL).total == 4 / 5
    assert reward(SHOE, 40.0, [], GOAL).total == 3 / 5
    assert reward(SHOE, 50.0, ["black", "9"], GOAL).total == 1.0  # the ceiling itself is within the budget
    dear = reward(SHOE, 50.01, ["black", "9"], GOAL)
    assert (dear.total, dear.r_price) == (4 / 5, 0.0)
    without_options = replace(GOAL, options=())
    assert reward(SHOE, 99.0, [], without_options).total == 2 / 3
    half = reward(SHOE, 40.0, ["9"], replace(GOAL, attributes=("non slip", "solid wood")))
    assert (half.total, half.r_attributes, half.r_options) == (3 / 5, 1 / 2, 1 / 2)


@pytest.mark.parametrize(
    ("goal_title", "query", "breadcrumbs", "expected"),
    [
        # 4 nouns of 5 in common
        ("Rovex Running Sneakers Memory Sole", "men's boots", "x", 1.0),
        # no common noun: 0, although the query is the same
        ("Leather Loafer", SHOE.query, SHOE.breadcrumbs, 0.0),
        # 1 of 11 nouns is 0.09: 0.1, although the query is the same
        ("Sneakers Aa Bb Cc Dd Ee Ff Gg Hh Ii Jj", SHOE.query, SHOE.breadcrumbs, 0.1),
        # 1 of 10 is not below 0.1; then query or two breadcrumbs decide, and neither: 0.5
        ("Sneakers Aa Bb Cc Dd Ee Ff Gg Hh Ii", SHOE.query, "x", 1.0),
        ("Sneakers Aa Bb Cc Dd Ee Ff Gg Hh Ii", "x", "Men › Shoes › Boots", 1.0),
        ("Sneakers Aa Bb Cc Dd Ee Ff Gg Hh Ii", "x", "Shoes › Boots", 0.5),
        # exactly 1 of 5 is not above 0.2
        ("Sneakers Aa Bb Cc Dd", "x", "x", 0.5),
        # repeats count in the goal only: 1 distinct noun of 4
        ("Sneakers Loafer Loafer Loafer", "x", "x", 1.0),
        ("Sneakers Loafer Loafer Loafer Loafer", "x", "x", 0.5),
        # a goal without nouns counts as an overlap of 0.2
        ("100 200", "x", "x", 0.5),
        ("100 200", SHOE.query, "x", 1.0),
    ],
)
def test_type_of_product(reward: Reward, goal_title: str, query: str, breadcrumbs: str, expected: float) -> None:
    goal = replace(GOAL, title=goal_title, query=query, breadcrumbs=breadcrumbs)
    assert reward.type_score(SHOE, goal) == expected
    assert reward(SHOE, 40.0, ["black", "9"], goal).total == expected  # it multiplies the whole


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        ("non slip", 1),
        ("slip non", 1),  # word order does not count
        ("support", 1),  # a subset of the words of `arch support`
        ("memory foam", 1),  # in the title
        ("rubber outsole", 1),  # in the bullet points
        ("outsole for", 1),  # across bullet points, which are joined by a blank
        ("machine washable", 1),  # in the description
        ("machine wash", 1),  # as a part of a word, too
        ("high heel", 0),
    ],
)
def test_attributes(wanted: str, met: int) -> None:
    assert attributes_met(SHOE, [wanted]) == met


@pytest.mark.parametrize(
    ("chosen", "wanted", "met"),
    [
        # a chosen value that CONTAINS a colour word is that colour
        ("black2626", "black", 1),
        ("jet black", ("color", "black"), 1),
        # a wanted pair has a colour only if its value IS one: `color black2626` is compared with `black`
        ("black2626", ("color", "black2626"), 0),
        ("black2626", "black2626", 1),
        # or if its name is one
        ("gold", ("gold", "14k"), 1),
        # the first colour in alphabetical order stands for the text: dark of `dark red`, blue of `dark blue`
        ("dark red", ("color", "dark blue"), 1),
        ("dark red", "dark blue", 0),
        ("dark red", "dark teal", 1),
        ("red", ("color", "blue"), 0),
        # words that are all among the other's
        ("large", ("size", "x-large"), 1),
        ("x-large", ("size", "large"), 0),
        ("x-large", "large", 1),
        ("8", ("size", "8.5"), 1),
        ("pack of 1", ("size", "pack of 12"), 1),
        ("small", ("size", "large"), 0),
        # the name of the group takes part in the comparison
        ("size", ("size", "7"), 1),
    ],
)
def test_options(chosen: str, wanted: tuple[str, str] | str, met: int) -> None:
    assert options_met([chosen], [wanted]) == met


def test_one_chosen_value_may_meet_several_wanted_ones() -> None:
    assert options_met(["large"], [("size", "large"), ("fit", "large")]) == 2
    assert options_met([], [("size", "large")]) == 0


@pytest.mark.parametrize(
    ("left", "right", "ratio"),
    [
        ("feather", "leather", 86),  # 200 * 6 / 14 = 85.7: above 85, so the two are the same
        ("a" * 20 + "bbb", "a" * 20 + "cccc", 85),  # 200 * 20 / 47 = 85.1: rounded down, not the same
        ("easy clean", "easy to clean", 100),  # one's words are all among the other's
        ("EASY-clean!", "clean easy", 100),  # case, punctuation and order do not count
        ("crème", "crme", 100),  # Latin-1 letters are dropped
        ("", "easy", 0),
        ("!!", "!!", 0),
        # common `red`; `red ab` to `red cd`: 200 * 4 / 12; `red` to `red ab`: 200 * 3 / 9 is as much
        ("red ab", "red cd", 67),
    ],
)
def test_token_set_ratio(left: str, right: str, ratio: int) -> None:
    assert token_set_ratio(left, right) == token_set_ratio(right, left) == ratio


def test_nouns_of_a_title() -> None:
    title = "Rovex's New long soft Cotton shirts for Men, 2 pcs quickly dry family-size easily"
    # capitalised adjectives count (New); numbers, function words, lower-case adjectives and adverbs do not
    assert word_list_nouns(title) == ["rovex", "new", "cotton", "shirts", "men", "pcs", "family", "size"]
