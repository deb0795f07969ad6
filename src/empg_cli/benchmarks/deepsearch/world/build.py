"""Building a world: graph, articles, questions, and the digest that says which world it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.world.articles import write_articles
from empg_cli.benchmarks.deepsearch.world.fictional import fictional_graph
from empg_cli.benchmarks.deepsearch.world.questions import Question, draw_questions
from empg_cli.benchmarks.deepsearch.world.real import real_graph

GENERATOR_VERSION: Final = 4
"""Part of the cache key: raise it with every change that alters a world, its index or the form of its files."""

Mode = Literal["real", "fictional"]


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """What determines a world. `scale` is read by `fictional` only: times 6,610 entities."""

    mode: Mode
    seed: int
    scale: float
    num_train: int
    num_test: int
    """Questions of each kind of each test split."""


@dataclass(frozen=True, slots=True)
class World:
    spec: WorldSpec
    passages: list[Passage]
    questions: dict[str, list[Question]]
    num_entities: int
    num_facts: int

    @property
    def digest(self) -> str:
        return world_digest(self.passages, self.questions)


def build_world(spec: WorldSpec) -> World:
    """The whole world from its spec alone; the same bytes on every machine. No question is checked for solvability yet:
    `store.open_world` does that with the search engine."""
    graph = real_graph() if spec.mode == "real" else fictional_graph(spec.seed, spec.scale)
    encyclopedia = write_articles(graph, spec.seed)
    questions = draw_questions(
        graph,
        encyclopedia,
        seed=spec.seed,
        num_train=spec.num_train,
        num_test=spec.num_test,
        avoid_common_answers=spec.mode == "real",
    )
    return World(spec, encyclopedia.passages, questions, len(graph.name), graph.num_facts)


def world_digest(passages: Sequence[Passage], questions: dict[str, list[Question]]) -> str:
    """sha256 over passages and questions in order, 16 hex digits."""
    sha = hashlib.sha256()
    for passage in passages:
        sha.update(json.dumps([passage.id, passage.title, passage.text], ensure_ascii=False).encode())
    for split, rows in questions.items():
        for question in rows:
            sha.update(json.dumps([split, *asdict(question).values()], ensure_ascii=False).encode())
    return sha.hexdigest()[:16]
