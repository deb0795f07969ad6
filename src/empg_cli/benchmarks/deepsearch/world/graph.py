"""The knowledge graph that articles and questions are written from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from empg_cli.benchmarks.deepsearch.world.relations import RELATIONS

Value = str | int
"""An entity id, a literal, or a number; the relation says which."""


class KnowledgeGraph:
    """Entities and facts, indexed in both directions. Insertion order never matters to a reader that sorts keys."""

    def __init__(self) -> None:
        self.name: dict[str, str] = {}
        self.type: dict[str, str] = {}
        self.aliases: dict[str, tuple[str, ...]] = {}
        self.objects: defaultdict[tuple[str, str], list[Value]] = defaultdict(list)
        """(subject, relation) -> objects."""
        self.subjects: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        """(relation, object entity) -> subjects."""

    def add_entity(self, entity: str, type_: str, name: str, aliases: Iterable[str] = ()) -> None:
        self.name[entity], self.type[entity], self.aliases[entity] = name, type_, tuple(aliases)

    def add_fact(self, subject: str, relation: str, value: Value) -> None:
        known = self.objects[subject, relation]
        if value in known:
            return
        known.append(value)
        if RELATIONS[relation].links:
            self.subjects[relation, str(value)].append(subject)

    def only_object(self, subject: str, relation: str) -> Value | None:
        """The object if the subject has exactly one, else None."""
        values = self.objects.get((subject, relation), ())
        return values[0] if len(values) == 1 else None

    def show(self, relation: str, value: Value) -> str:
        """How a value reads in text: an entity's name, a number with thousands separators."""
        if RELATIONS[relation].links:
            return self.name[str(value)]
        return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)

    @property
    def num_facts(self) -> int:
        return sum(map(len, self.objects.values()))
