"""Every sound reasoning chain of the graph, enumerated (not sampled) up to a depth.

A chain starts at a named entity and follows hops; its last value is the answer. It is sound when
- every hop has exactly one result, and the results between start and answer have names of their own;
- every hop needs another article;
- the answer cannot be read in the question, nor on a page before the last two.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from empg_cli.benchmarks.deepsearch.answers import normalise
from empg_cli.benchmarks.deepsearch.world.articles import Encyclopedia
from empg_cli.benchmarks.deepsearch.world.graph import KnowledgeGraph, Value
from empg_cli.benchmarks.deepsearch.world.relations import LITERAL, NUMBER, RELATIONS

MIN_CHOICES = 50
"""A relation with fewer distinct values (continents, occupations) never ends a chain of two hops or more: guessing the
commonest value would score."""


class Hop(NamedTuple):
    relation: str
    inverse: bool
    """From the object to the subject."""

    @property
    def answer_type(self) -> str:
        rule = RELATIONS[self.relation]
        return rule.subject if self.inverse else rule.object

    def phrase(self, known: str) -> str:
        """Noun phrase for the result, given the text of what is known."""
        rule = RELATIONS[self.relation]
        template = rule.inverse_phrase if self.inverse else rule.phrase
        return template.format(known)


Path = tuple[Hop, ...]


class Chain(NamedTuple):
    start: str
    """Entity that the question names."""
    results: tuple[Value, ...]
    """Result of each hop; the last one is the answer."""
    evidence: tuple[str, ...]
    """Id of the passage that states each hop."""


class ChainFinder:
    def __init__(self, graph: KnowledgeGraph, encyclopedia: Encyclopedia) -> None:
        self._graph, self._encyclopedia = graph, encyclopedia
        self._forward: defaultdict[str, list[str]] = defaultdict(list)
        self._inverse: defaultdict[str, list[str]] = defaultdict(list)
        for key, rule in RELATIONS.items():
            if rule.phrase and rule.object != NUMBER:
                self._forward[rule.subject].append(key)
            if rule.inverse_phrase:
                self._inverse[rule.object].append(key)
        self._hops_from: dict[str, tuple[tuple[Hop, Value, str], ...]] = {}
        self._stated = self._stated_names()

    @cached_property
    def unique_names(self) -> frozenset[str]:
        """Entities whose name no other entity shares after normalisation."""
        counts = Counter(normalise(name) for name in self._graph.name.values())
        return frozenset(
            entity
            for entity, name in self._graph.name.items()
            if counts[normalise(name)] == 1 and len(normalise(name)) > 2
        )

    def chains(self, max_depth: int) -> dict[Path, list[Chain]]:
        """All sound chains by relation path, in a fixed order."""
        found: defaultdict[Path, list[Chain]] = defaultdict(list)
        for start in sorted(self.unique_names):
            for path, chain in self._walk(Chain(start, (), ()), (), max_depth):
                found[path].append(chain)
        return dict(found)

    def show(self, hop: Hop, value: Value) -> str:
        return self._graph.name[str(value)] if hop.inverse else self._graph.show(hop.relation, value)

    def _walk(self, chain: Chain, path: Path, max_depth: int) -> Iterator[tuple[Path, Chain]]:
        here = str(chain.results[-1]) if chain.results else chain.start
        if here not in self._hops_from:
            self._hops_from[here] = tuple(self._single_valued_hops(here))
        for hop, value, passage in self._hops_from[here]:
            if value == chain.start or value in chain.results:
                continue
            if path and path[-1] == (hop.relation, not hop.inverse):
                continue  # straight back
            is_entity = hop.inverse or RELATIONS[hop.relation].links
            if is_entity and value not in self.unique_names:
                continue
            longer = Chain(chain.start, (*chain.results, value), (*chain.evidence, passage))
            longer_path = (*path, hop)
            if self._is_sound(longer, longer_path):
                yield longer_path, longer
            if is_entity and len(longer_path) < max_depth:
                yield from self._walk(longer, longer_path, max_depth)

    def _single_valued_hops(self, entity: str) -> Iterator[tuple[Hop, Value, str]]:
        graph, stated_in, type_ = self._graph, self._encyclopedia.stated_in, self._graph.type[entity]
        for key in self._forward[type_]:
            value = graph.only_object(entity, key)
            if value is not None and not (RELATIONS[key].object == LITERAL and self._is_ambiguous(key, str(value))):
                yield Hop(key, inverse=False), value, stated_in[entity, key, value]
        for key in self._inverse[type_]:
            subjects = graph.subjects.get((key, entity), ())
            if len(subjects) == 1 and graph.only_object(subjects[0], key) == entity:
                on_object_page = bool(RELATIONS[key].object_sentence)
                place = (entity, key, subjects[0]) if on_object_page else (subjects[0], key, entity)
                yield Hop(key, inverse=True), subjects[0], stated_in[place]

    def _is_sound(self, chain: Chain, path: Path) -> bool:
        answer = normalise(self.show(path[-1], chain.results[-1]))
        pages = {self._encyclopedia.page_of[passage] for passage in chain.evidence}
        if not answer or len(pages) < len(chain.evidence):
            return False
        if len(path) > 1 and self._num_values[path[-1].relation] < MIN_CHOICES:
            return False
        before = (chain.start, *map(str, chain.results[:-1]))
        names = [normalise(self._graph.name[entity]) for entity in before]
        if any(answer in name or name in answer for name in names):
            return False
        return not any(answer in self._stated[entity] for entity in before[:-1])

    def _stated_names(self) -> defaultdict[str, set[str]]:
        """Entity -> every normalised value that its article states."""
        stated: defaultdict[str, set[str]] = defaultdict(set)
        for (subject, relation), values in self._graph.objects.items():
            for value in values:
                stated[subject].add(normalise(self._graph.show(relation, value)))
                if RELATIONS[relation].object_sentence:
                    stated[str(value)].add(normalise(self._graph.name[subject]))
        return stated

    @cached_property
    def _literals(self) -> dict[str, dict[str, set[str]]]:
        """Relation -> normalised literal -> the literals that normalise to it."""
        literals: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for (_, relation), values in self._graph.objects.items():
            if RELATIONS[relation].object == LITERAL:
                for value in values:
                    literals[relation][normalise(str(value))].add(str(value))
        return {relation: dict(values) for relation, values in literals.items()}

    def _is_ambiguous(self, relation: str, literal: str) -> bool:
        """Exact match could not tell it from another literal, or from nothing (the IATA code THE)."""
        return not normalise(literal) or len(self._literals[relation][normalise(literal)]) > 1

    @cached_property
    def _num_values(self) -> Counter[str]:
        values: defaultdict[str, set[Value]] = defaultdict(set)
        for (_, relation), found in self._graph.objects.items():
            values[relation].update(found)
        return Counter({relation: len(found) for relation, found in values.items()})
