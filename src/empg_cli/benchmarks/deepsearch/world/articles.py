"""One article per entity, cut into passages, and where each fact is stated."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from empg_cli.benchmarks.deepsearch.answers import normalise
from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.world.graph import KnowledgeGraph, Value
from empg_cli.benchmarks.deepsearch.world.relations import RELATIONS

MAX_PASSAGE_WORDS = 100
"""As in wiki-18."""


@dataclass(frozen=True, slots=True)
class Encyclopedia:
    passages: list[Passage]
    stated_in: dict[tuple[str, str, Value], str]
    """(page entity, relation, other entity or value) -> id of the passage of that page that says so. The other one is
    the object on the subject's page and the subject on the object's page."""
    page_of: dict[str, str]
    """Passage id -> entity whose article it belongs to."""


@dataclass(frozen=True, slots=True)
class _Sentence:
    relation: str
    other: Value
    text: str


def stable_choice(*key: object, n: int) -> int:
    """A number in [0, n) that depends on `key` only: not on order, process or hash seed."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest(), "big") % n


def write_articles(graph: KnowledgeGraph, seed: int) -> Encyclopedia:
    """The encyclopedia of a graph. Passage ids are plain row numbers, so that an id gives nothing away."""
    titles = _titles(graph)
    passages: list[Passage] = []
    stated_in: dict[tuple[str, str, Value], str] = {}
    page_of: dict[str, str] = {}
    facts_of = _facts_by_page(graph)
    for entity in sorted(graph.name):
        sections: defaultdict[int, list[_Sentence]] = defaultdict(list)
        for relation, other, is_subject in facts_of[entity]:
            sections[RELATIONS[relation].section].append(_sentence(graph, seed, entity, relation, other, is_subject))
        if not sections:
            sections[0].append(_Sentence("", "", f"{graph.name[entity]} is a {graph.type[entity]}."))
        for section in sorted(sections):
            for chunk in _chunks(sections[section]):
                id_ = str(len(passages))
                passages.append(Passage(id_, titles[entity], " ".join(sentence.text for sentence in chunk)))
                page_of[id_] = entity
                stated_in.update({(entity, s.relation, s.other): id_ for s in chunk})
    return Encyclopedia(passages, stated_in, page_of)


def _titles(graph: KnowledgeGraph) -> dict[str, str]:
    """The name; where names collide, the name with the type or, if that is not enough, with the local id."""
    same_name: defaultdict[str, list[str]] = defaultdict(list)
    for entity in sorted(graph.name):
        same_name[normalise(graph.name[entity])].append(entity)
    titles = {}
    for entity, name in graph.name.items():
        rivals = same_name[normalise(name)]
        if len(rivals) == 1:
            titles[entity] = name
        elif sum(graph.type[rival] == graph.type[entity] for rival in rivals) == 1:
            titles[entity] = f"{name} ({graph.type[entity]})"
        else:
            titles[entity] = f"{name} ({entity.split(':', 1)[1]})"
    return titles


def _facts_by_page(graph: KnowledgeGraph) -> defaultdict[str, list[tuple[str, Value, bool]]]:
    """Entity -> (relation, other, is the subject) of the facts that its article states, own facts first."""
    pages: defaultdict[str, list[tuple[str, Value, bool]]] = defaultdict(list)
    for subject, relation in sorted(graph.objects):
        pages[subject] += [(relation, value, True) for value in graph.objects[subject, relation]]
    for relation, target in sorted(graph.subjects):
        if RELATIONS[relation].object_sentence:
            pages[target] += [(relation, subject, False) for subject in sorted(graph.subjects[relation, target])]
    return pages


def _sentence(
    graph: KnowledgeGraph, seed: int, entity: str, relation: str, other: Value, is_subject: bool
) -> _Sentence:
    rule, name = RELATIONS[relation], graph.name[entity]
    if is_subject:
        template = rule.sentences[stable_choice(seed, entity, relation, n=len(rule.sentences))]
        return _Sentence(relation, other, template.format(s=name, o=graph.show(relation, other)))
    return _Sentence(relation, other, rule.object_sentence.format(s=graph.name[str(other)], o=name))


def _chunks(sentences: list[_Sentence]) -> list[list[_Sentence]]:
    chunks: list[list[_Sentence]] = [[]]
    words = 0
    for sentence in sentences:
        length = len(sentence.text.split())
        if chunks[-1] and words + length > MAX_PASSAGE_WORDS:
            chunks.append([])
            words = 0
        chunks[-1].append(sentence)
        words += length
    return chunks
