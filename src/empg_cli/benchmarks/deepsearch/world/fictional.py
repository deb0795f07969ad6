"""The `fictional` world: a seeded encyclopedia of invented places and people that no language model can know."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from empg_cli.benchmarks.deepsearch.world.graph import KnowledgeGraph
from empg_cli.benchmarks.deepsearch.world.names import Namer

COUNTS = {
    "country": 60,
    "language": 50,
    "currency": 50,
    "city": 700,
    "university": 150,
    "company": 400,
    "person": 4000,
    "book": 1200,
}
"""Entities at scale 1; 6,610 in all."""
MIN_COUNT = 8
BORDERS_PER_COUNTRY = 2
CONTINENTS = 5
TIME_ZONES = 24
MARRIED = 0.7
OCCUPATIONS = (
    "painter",
    "physicist",
    "poet",
    "engineer",
    "composer",
    "botanist",
    "architect",
    "historian",
    "surgeon",
    "sculptor",
)


def fictional_graph(seed: int, scale: float = 1.0) -> KnowledgeGraph:
    """A world of `scale` times 6,610 entities. The same seed and scale give the same world on every machine."""
    world = _FictionalWorld(random.Random(f"fictional {seed}"), scale)
    world.name_everything()
    world.settle_countries()
    world.settle_cities()
    world.found_institutions()
    world.live()
    world.publish()
    return world.graph


class _FictionalWorld:
    def __init__(self, rng: random.Random, scale: float) -> None:
        self.rng = rng
        self.namer = Namer(rng)
        self.graph = KnowledgeGraph()
        self.ids = {
            type_: [f"{type_}:{i}" for i in range(max(MIN_COUNT, int(count * scale)))]
            for type_, count in COUNTS.items()
        }

    def name_everything(self) -> None:
        rng, namer = self.rng, self.namer
        makers: dict[str, Callable[[], str]] = {
            "country": lambda: namer(2, ("ia", "land", "stan", "ora", "")),
            "language": lambda: namer(2, ("ish", "ese", "i")),
            "currency": lambda: f"{namer(2).lower()} {rng.choice(('crown', 'mark', 'dollar', 'peso'))}",
            "city": lambda: namer(3, ("", "ville", "burg", "ton", "mar")),
            "university": lambda: f"{namer(2)} University",
            "company": lambda: f"{namer(2)} {rng.choice(('Industries', 'Group', 'Systems', 'Foods'))}",
            "person": lambda: f"{namer(2)} {namer(2, ('', 'son', 'ez', 'ov', 'ini'))}",
            "book": lambda: (
                f"The {namer(2)} {rng.choice(('Garden', 'Letters', 'Machine', 'River', 'Archive', 'Winter'))}"
            ),
        }
        for type_, make in makers.items():
            for entity in self.ids[type_]:
                self.graph.add_entity(entity, type_, make())
        self.continents = [namer(3) for _ in range(CONTINENTS)]
        self.time_zones = [f"{namer(2)} Time" for _ in range(TIME_ZONES)]

    def settle_countries(self) -> None:
        rng, graph, countries = self.rng, self.graph, self.ids["country"]
        for i, country in enumerate(countries):
            graph.add_fact(country, "capital", self.ids["city"][i])
            graph.add_fact(country, "continent", rng.choice(self.continents))
            graph.add_fact(country, "currency", self._one_each("currency", i))
            graph.add_fact(country, "official_language", self._one_each("language", i))
            graph.add_fact(country, "area_km2", rng.randrange(2_000, 3_000_000))
            graph.add_fact(country, "population", rng.randrange(100_000, 200_000_000))
            graph.add_fact(country, "calling_code", f"+{self.namer.code(4, string.digits[1:])}")
        for _ in range(BORDERS_PER_COUNTRY * len(countries)):
            a, b = rng.sample(countries, 2)
            graph.add_fact(a, "borders", b)
            graph.add_fact(b, "borders", a)
        for currency in self.ids["currency"]:
            graph.add_fact(currency, "currency_code", self.namer.code(3, string.ascii_uppercase))
        for language in self.ids["language"]:
            graph.add_fact(language, "lang_code", self.namer.code(3, string.ascii_lowercase))

    def settle_cities(self) -> None:
        countries = self.ids["country"]
        for i, city in enumerate(self.ids["city"]):
            self.graph.add_fact(city, "city_country", countries[i % len(countries)])
            self.graph.add_fact(city, "city_population", self.rng.randrange(20_000, 9_000_000))
            self.graph.add_fact(city, "timezone", self.rng.choice(self.time_zones))

    def found_institutions(self) -> None:
        for university in self.ids["university"]:
            self._link(university, "uni_city", "city")
            self.graph.add_fact(university, "uni_founded", str(self.rng.randrange(1400, 2000)))
        for company in self.ids["company"]:
            self._link(company, "comp_founder", "person")
            self._link(company, "comp_hq", "city")

    def live(self) -> None:
        rng, graph, people = self.rng, self.graph, self.ids["person"]
        for person in people:
            self._link(person, "born_in", "city")
            graph.add_fact(person, "birth_year", str(rng.randrange(1850, 2000)))
            graph.add_fact(person, "occupation", rng.choice(OCCUPATIONS))
            self._link(person, "studied_at", "university")
            self._link(person, "works_for", "company")
        shuffled = people[:]
        rng.shuffle(shuffled)
        for a, b in zip(shuffled[::2], shuffled[1::2], strict=False):
            if rng.random() < MARRIED:
                graph.add_fact(a, "spouse", b)
                graph.add_fact(b, "spouse", a)

    def publish(self) -> None:
        for book in self.ids["book"]:
            self._link(book, "book_author", "person")
            self.graph.add_fact(book, "book_year", str(self.rng.randrange(1900, 2025)))

    def _link(self, subject: str, relation: str, type_: str) -> None:
        self.graph.add_fact(subject, relation, self.rng.choice(self.ids[type_]))

    def _one_each(self, type_: str, i: int) -> str:
        """The first countries get one of their own, the rest share."""
        return self.ids[type_][i] if i < len(self.ids[type_]) else self.rng.choice(self.ids[type_])
