"""Every fact that a passage of the world's English states, and which documents an observation shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from empg_cli.benchmarks.deepsearch.world.relations import RELATIONS

_DOCUMENT: Final = re.compile(r"^Doc \d+(?: \[[^\]]*\] )?\(Title: (?P<title>.*?)\) (?P<text>.*)$", re.MULTILINE)
_SENTENCE_END: Final = re.compile(r"(?<=\.) (?=[A-Z])")


class Fact(NamedTuple):
    subject: str
    relation: str
    object: str


def shown_facts(observation: str) -> list[Fact]:
    """The facts of all documents of a search result, in the order of reading, each once."""
    shown = observation.removeprefix("<information>").removesuffix("</information>")
    facts = (fact for match in _DOCUMENT.finditer(shown) for fact in read_facts(match["text"], title=match["title"]))
    return list(dict.fromkeys(facts))


def read_facts(text: str, *, title: str) -> Iterator[Fact]:
    """The facts of one passage; sentences without a subject are about the title."""
    for sentence in _SENTENCE_END.split(text):
        for relation, pattern in _SENTENCES:
            if match := pattern.fullmatch(sentence):
                found = match.groupdict()
                yield Fact(found.get("s", title), relation, found["o"])
                break


def _pattern(template: str) -> re.Pattern[str]:
    source = re.escape(template).replace(r"\{s\}", "(?P<s>.+)").replace(r"\{o\}", "(?P<o>.+)")
    return re.compile(source)


def _sentences() -> Iterator[tuple[str, re.Pattern[str]]]:
    templates = [
        (key, template)
        for key, rule in RELATIONS.items()
        for template in (*rule.sentences, rule.object_sentence)
        if template
    ]
    for key, template in sorted(templates, key=lambda row: -len(row[1])):
        yield key, _pattern(template)


_SENTENCES: Final = tuple(_sentences())
"""Longest first: "is the capital city of" before "is located in"."""
