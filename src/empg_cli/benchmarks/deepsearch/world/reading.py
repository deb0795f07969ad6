"""Reading the world's English: a question becomes a plan of look-ups, a passage gives up the fact that was asked for.

This is all the expert knows. It works on text, so it sees only what an agent sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from empg_cli.benchmarks.deepsearch.world.chains import Hop
from empg_cli.benchmarks.deepsearch.world.relations import (
    COMPARISON_QUESTION,
    COMPARISONS,
    INTERSECTION_QUESTION,
    RELATIONS,
    Comparison,
)


@dataclass(frozen=True, slots=True)
class ChainPlan:
    start: str
    hops: tuple[Hop, ...]
    """In the order of looking up."""


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    rule: Comparison
    pairs: tuple[tuple[str, str], ...]
    """Possible readings of "A or B"; names may hold an "or" of their own."""


@dataclass(frozen=True, slots=True)
class IntersectionPlan:
    pairs: tuple[tuple[str, str], ...]
    """Possible readings of "A and B" (Trinidad and Tobago)."""


Plan = ChainPlan | ComparisonPlan | IntersectionPlan


def plan_question(text: str) -> Plan | None:
    """How to answer a question of this world; None for any other text."""
    for rule in COMPARISONS:
        head, tail = COMPARISON_QUESTION.format(type=rule.type, what=rule.what, a="\0", b="\0").split("\0")[::2]
        if names := _between(text, head, tail):
            return ComparisonPlan(rule, _splits(names, " or "))
    head, tail = INTERSECTION_QUESTION.format(a="\0", b="\0").split("\0")[::2]
    if names := _between(text, head, tail):
        return IntersectionPlan(_splits(names, " and "))
    for head in ("What is ", "Who is "):
        if phrase := _between(text, head, "?"):
            start, hops = _unwrap(phrase)
            return ChainPlan(start, hops) if hops else None
    return None


def find_fact(text: str, hop: Hop, known: str, *, by_title: bool) -> str | None:
    """The result of a hop, read from one passage; None when the passage does not say it.

    Args:
        known: name of the entity that the hop starts from.
        by_title: the passage's title is `known`, so sentences with "it" are about it.
    """
    for head, tail in _patterns(hop):
        if by_title or "\0" in head + tail:
            found = _within_sentence(text, head.replace("\0", known), tail.replace("\0", known))
            if found:
                return found
    return None


def find_all_facts(text: str, relation: str, subject: str) -> Iterator[str]:
    """Every object that the passage states of a many-valued relation (the neighbours of a country)."""
    head, tail = RELATIONS[relation].sentences[0].format(s=subject, o="\0").split("\0")
    start = text.find(head)
    while start >= 0:
        end = text.find(tail, start)
        if end < 0:
            return
        yield text[start + len(head) : end]
        start = text.find(head, end)


def _unwrap(phrase: str) -> tuple[str, tuple[Hop, ...]]:
    """Peel off noun phrases: "the capital of the country in which X is located" -> X, (located, capital)."""
    for head, tail, hop in _WRAPPERS:
        if inner := _between(phrase, head, tail):
            start, hops = _unwrap(inner)
            return start, (*hops, hop)
    return phrase.removeprefix("the "), ()


def _wrappers() -> Iterator[tuple[str, str, Hop]]:
    for key, rule in RELATIONS.items():
        for phrase, inverse in ((rule.phrase, False), (rule.inverse_phrase, True)):
            if phrase:
                head, tail = phrase.split("{}")
                yield head, tail, Hop(key, inverse)


_WRAPPERS: Final = sorted(_wrappers(), key=lambda wrapper: -len(wrapper[0]) - len(wrapper[1]))
"""Longest first: "the country in which X was discovered" before "the country in which X is located"."""


@cache
def _patterns(hop: Hop) -> tuple[tuple[str, str], ...]:
    """What stands before and after the wanted name in the sentences that state a hop; \\0 is the known name."""
    rule = RELATIONS[hop.relation]
    templates = (rule.object_sentence,) if hop.inverse and rule.object_sentence else rule.sentences
    wanted, known = ("{s}", "{o}") if hop.inverse else ("{o}", "{s}")
    halves = (template.replace(known, "\0").split(wanted) for template in templates)
    return tuple((head, tail) for head, tail in halves)


def _within_sentence(text: str, head: str, tail: str) -> str | None:
    """What stands between head and tail; an empty head is the start of the sentence, a tail of "." its end."""
    if not head:
        end = text.find(tail)
        return text[text.rfind(". ", 0, end) + 2 if ". " in text[:end] else 0 : end] if end > 0 else None
    start = text.find(head)
    if start < 0:
        return None
    start += len(head)
    end = text.find(tail, start)
    while end >= 0 and tail == "." and not _ends_sentence(text, end):
        end = text.find(tail, end + 1)
    return text[start:end] if end > start else None


def _ends_sentence(text: str, dot: int) -> bool:
    """Not the dot of an initial ("Antoine J. Balard") or inside a word; "St. Louis" is misread."""
    is_initial = text[dot - 2 : dot - 1] in (" ", ".") and text[dot - 1].isalpha()
    return text[dot + 1 : dot + 2] in ("", " ", "\n") and not is_initial


def _between(text: str, head: str, tail: str) -> str | None:
    """What stands between a prefix and a suffix of the whole text, if anything does."""
    if len(text) > len(head) + len(tail) and text.startswith(head) and text.endswith(tail):
        return text[len(head) : len(text) - len(tail)]
    return None


def _splits(names: str, separator: str) -> tuple[tuple[str, str], ...]:
    words = names.split(separator)
    return tuple((separator.join(words[:i]), separator.join(words[i:])) for i in range(1, len(words)))
