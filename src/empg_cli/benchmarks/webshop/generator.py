"""A made-up shop with the structure that WebShop's reward looks at; the same for the same size and seed everywhere.

The share of products with goals, of price ranges and of products without options follow the official small set. Unlike
there, every goal can be solved, and one wrong option never scores 1: values that the reward would take for one another
are not offered side by side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache

from empg_cli.benchmarks.webshop.catalog import NO_PRICE, HumanInstruction, Product
from empg_cli.benchmarks.webshop.reward import options_met
from empg_cli.benchmarks.webshop.vocabulary import (
    ATTRIBUTE_POOLS,
    OPTION_GROUPS,
    PRODUCT_TYPES,
    SERIES,
    SERIES_WORDS,
    AttributePool,
    ProductType,
)

_GOAL_SHARE = 0.42
_NO_OPTIONS_SHARE = 0.12
_NO_PRICE_SHARE = 0.09
_PRICE_RANGE_SHARE = 0.10
_ASIN_SIGNS = "0123456789ABCDEFGHJKLMNPQRSTVWXYZ"


def generate(count: int, seed: int) -> Iterator[Product]:
    """`count` products, one of each type first. Draws only from its own random generator."""
    rng = random.Random(f"webshop-{seed}")
    brands = [_brand(rng) for _ in range(max(30, count // 25))]
    used: set[str] = set()
    for row in range(count):
        kind = PRODUCT_TYPES[row] if row < len(PRODUCT_TYPES) else rng.choice(PRODUCT_TYPES)
        yield _product(kind, brands, used, rng)


def _product(kind: ProductType, brands: Sequence[str], used: set[str], rng: random.Random) -> Product:
    pool = ATTRIBUTE_POOLS[kind.pool]
    attributes = rng.sample(pool.lead, rng.randint(1, 4))
    attributes += rng.sample(pool.with_, rng.randint(0, 3))
    attributes += rng.sample(pool.for_, rng.randint(0, 2))
    options = _options(kind, rng)
    prices = _prices(kind, rng)
    brand = rng.choice(brands)
    in_title = rng.sample(attributes, min(len(attributes), rng.randint(1, 3)))
    title = _title(kind, brand, in_title, rng)
    bullets = _bullets(kind, brand, [a for a in attributes if a not in in_title] + in_title[:1], rng)
    description = _description(kind, brand, attributes, rng)
    asin = _asin(used, rng)
    instruction: str | None = None
    wanted: list[str] = []
    human: tuple[HumanInstruction, ...] = ()
    if rng.random() < _GOAL_SHARE and len(attributes) >= 2:
        wanted = rng.sample(attributes, rng.randint(2, min(4, len(attributes))))
        instruction = _instruction(kind.query, _by_place(wanted, pool))
        picks = {group: rng.choice(values) for group, values in options.items()}
        spoken = _spoken_instruction(kind.noun, _by_place(wanted, pool), picks, rng)
        human = (HumanInstruction(spoken, tuple(wanted), tuple(picks.values())),)
    return Product(
        asin=asin,
        title=title,
        description=description,
        bullets=tuple(bullets),
        query=kind.query,
        department=kind.department,
        breadcrumbs=kind.breadcrumbs,
        prices=prices,
        options=options,
        attributes=tuple(attributes),
        instruction=instruction,
        instruction_attributes=tuple(wanted),
        human=human,
    )


def _options(kind: ProductType, rng: random.Random) -> dict[str, tuple[str, ...]]:
    options = {}
    for key in kind.option_groups:
        group = OPTION_GROUPS[key]
        picked = rng.sample(group.values, min(len(group.values), rng.randint(group.fewest, group.most)))
        distinct = _distinguishable(group.name, picked)
        if group.name == "size":
            distinct.sort(key=group.values.index)
        options[group.name] = tuple(distinct)
    return options if rng.random() >= _NO_OPTIONS_SHARE else {}


def _distinguishable(group: str, values: Sequence[str]) -> list[str]:
    """The values, without those that the reward would take for an earlier one."""
    kept: list[str] = []
    for value in values:
        if not any(_meets(group, value, other) or _meets(group, other, value) for other in kept):
            kept.append(value)
    return kept


@cache
def _meets(group: str, chosen: str, wanted: str) -> bool:
    """Whether one value passes for the other in a synthetic or in a human goal."""
    return any(options_met([chosen], [option]) for option in ((group, wanted), wanted))


def _prices(kind: ProductType, rng: random.Random) -> tuple[float, ...]:
    """Log-uniform within the type's range; some products have none, some a range."""
    price = kind.low * (kind.high / kind.low) ** rng.random()
    draw = rng.random()
    if draw < _NO_PRICE_SHARE:
        return (NO_PRICE,)
    if draw < _NO_PRICE_SHARE + _PRICE_RANGE_SHARE:
        return round(price, 2), round(price * rng.uniform(1.1, 1.8), 2)
    return (round(price, 2),)


def _brand(rng: random.Random) -> str:
    syllables = (rng.choice("BCDFGHJKLMNPRSTVZ") + rng.choice("aeiou") for _ in range(rng.choice((2, 3))))
    return "".join(syllables).capitalize() + rng.choice(["", "x", "n", "l", "r"])


def _title(kind: ProductType, brand: str, attributes: Sequence[str], rng: random.Random) -> str:
    wearer = kind.breadcrumbs.split(" › ")[1] + "'s " if kind.department == "fashion" else ""
    features = ", ".join(attribute.title() for attribute in attributes)
    return f"{brand} {wearer}{kind.noun.title()} {features} {rng.choice(SERIES)} {rng.choice(SERIES_WORDS)}"


def _bullets(kind: ProductType, brand: str, attributes: Sequence[str], rng: random.Random) -> list[str]:
    bullets = []
    for attribute in attributes:
        praise = rng.choice(["reliable", "pleasant", "practical", "good looking"])
        sentences = (
            f"{attribute.title()}: made so that every {kind.noun} stays {praise}.",
            f"{brand} chose {attribute} for this {kind.noun}, which our customers asked for.",
            f"Designed with {attribute} in mind.",
        )
        bullets.append(rng.choice(sentences))
    rng.shuffle(bullets)
    return bullets


def _description(kind: ProductType, brand: str, attributes: Sequence[str], rng: random.Random) -> str:
    praise = rng.choice(["a favourite", "a new arrival", "an everyday choice", "a gift idea"])
    sentences = [f"The {brand} {kind.noun} is {praise} in {kind.query}."]
    pool = ATTRIBUTE_POOLS[kind.pool]
    for attribute in rng.sample(attributes, min(2, len(attributes))):
        plain = "It is" if attribute in pool.lead else "It comes with" if attribute in pool.with_ else "It is meant for"
        sentences.append(f"{rng.choice((plain, 'Our buyers say:', 'Think'))} {attribute}.")
    return " ".join(sentences)


def _asin(used: set[str], rng: random.Random) -> str:
    while (asin := "B0" + "".join(rng.choice(_ASIN_SIGNS) for _ in range(8))) in used:
        pass
    used.add(asin)
    return asin


def _by_place(attributes: Sequence[str], pool: AttributePool) -> AttributePool:
    """The attributes by their place in a sentence, in their own order."""
    return AttributePool(*(tuple(a for a in attributes if a in place) for place in pool))


def _instruction(query: str, attributes: AttributePool) -> str:
    """WebShop's grammar: `Find me {lead} {query} with {with} for {for}`."""
    parts = ["Find me", ", ".join(attributes.lead), query]
    if attributes.with_:
        parts += ["with", ", ".join(attributes.with_)]
    if attributes.for_:
        parts += ["for", ", ".join(attributes.for_)]
    return " ".join(part for part in parts if part)


_OPENINGS = ("i am looking for", "i want to buy", "i need", "can you find me", "i would like", "show me")


def _spoken_instruction(noun: str, attributes: AttributePool, options: dict[str, str], rng: random.Random) -> str:
    """The same wish as a person might say it, with one choice of options named."""
    wish = f"{rng.choice(_OPENINGS)} {' '.join(attributes.lead) or 'some'} {noun}"
    if attributes.with_:
        wish += " with " + " and ".join(attributes.with_)
    if attributes.for_:
        wish += " for " + " and ".join(attributes.for_)
    for group, value in options.items():
        match group:
            case "color":
                forms = (f" in {value}", f", {value} {group}")
            case "size":
                forms = (f" in size {value}", f", size {value}")
            case _:
                forms = (f" in {value}", f", {group} {value}")
        wish += rng.choice((*forms, f", and the {group} should be {value}"))
    return wish
