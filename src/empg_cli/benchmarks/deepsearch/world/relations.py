"""The relations of the world (`relations.toml`) and the forms of its questions."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

LITERAL: Final = "literal"
"""Object type of a plain string: a code, a year, a name without an article."""
NUMBER: Final = "number"
"""Object type of a quantity; compared, never the end of a chain."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One typed relation `subject --key--> object`; the fields are explained at the head of `relations.toml`."""

    key: str
    subject: str
    object: str
    sentences: tuple[str, ...]
    phrase: str = ""
    inverse_phrase: str = ""
    object_sentence: str = ""
    keyword: str = ""
    section: int = 0

    @property
    def links(self) -> bool:
        """The object is an entity with an article of its own."""
        return self.object not in (LITERAL, NUMBER)


@dataclass(frozen=True, slots=True)
class Comparison:
    """ "Which {type} has {what}, A or B?": the greater value of a numeric relation wins."""

    relation: str
    type: str
    what: str


def _load() -> dict[str, Relation]:
    table: dict[str, dict[str, Any]] = tomllib.loads(
        files(__package__).joinpath("relations.toml").read_text(encoding="utf-8")
    )
    return {key: Relation(key=key, **row | {"sentences": tuple(row["sentences"])}) for key, row in table.items()}


RELATIONS: Final = _load()
"""Relation key -> relation, in the order of the file."""

COMPARISONS: Final = (
    Comparison("area_km2", "country", "the larger area"),
    Comparison("population", "country", "the larger population"),
    Comparison("city_population", "city", "more inhabitants"),
    Comparison("elevation_ft", "airport", "the higher elevation"),
)
COMPARISON_QUESTION: Final = "Which {type} has {what}, {a} or {b}?"

INTERSECTION_RELATION: Final = "borders"
INTERSECTION_QUESTION: Final = "Which country borders both {a} and {b}?"


def in_a_phrase(name: str, type_: str) -> str:
    """A name as a question writes it: the Euro, but France."""
    return f"the {name}" if type_ == "currency" else name


def chain_question(phrase: str, answer_type: str) -> str:
    """A whole question from the noun phrase of its answer."""
    return f"{'Who' if answer_type == 'person' else 'What'} is {phrase}?"
