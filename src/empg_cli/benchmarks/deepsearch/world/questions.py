"""Questions drawn from the graph: chains, comparisons and intersections, in a train split and held-out splits.

Held out by hash: 30 % of the relation bigrams and 20 % of the start entities. `id` asks seen compositions about
held-out entities. Out of distribution: `ood_composition` (unseen bigrams, as Bamboogle), `ood_depth3` and `ood_depth4`
(deeper, as MuSiQue), `ood_intersection` (a new operation).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

from empg_cli.benchmarks.deepsearch.answers import normalise, without_diacritics
from empg_cli.benchmarks.deepsearch.world.articles import Encyclopedia, stable_choice
from empg_cli.benchmarks.deepsearch.world.chains import Chain, ChainFinder, Hop, Path
from empg_cli.benchmarks.deepsearch.world.graph import KnowledgeGraph, Value
from empg_cli.benchmarks.deepsearch.world.relations import (
    COMPARISON_QUESTION,
    COMPARISONS,
    INTERSECTION_QUESTION,
    INTERSECTION_RELATION,
    chain_question,
    in_a_phrase,
)

HELD_OUT_BIGRAMS: Final = 30
"""Percent."""
HELD_OUT_ENTITIES: Final = 20
"""Percent."""
MAX_DEPTH: Final = 4

SPLITS: Final = ("train", "id", "ood_composition", "ood_depth3", "ood_depth4", "ood_intersection")
KINDS: Final = {
    "train": ("1hop", "2hop", "compare"),
    "id": ("1hop", "2hop", "compare"),
    "ood_composition": ("composition",),
    "ood_depth3": ("depth3",),
    "ood_depth4": ("depth4",),
    "ood_intersection": ("intersection",),
}
"""Split -> its task kinds, which are its data sources in reports."""
TRAIN_SHARE: Final = {"1hop": 0.25, "2hop": 0.55, "compare": 0.20}


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    text: str
    answers: tuple[str, ...]
    """Accepted strings; the first is what the corpus says."""
    kind: str
    """Data source, e.g. `2hop` or `hotpotqa`."""
    split: str
    path: tuple[tuple[str, bool], ...] = ()
    """Relations of the chain; for tests and analysis, never shown. Empty for official questions."""
    entities: tuple[str, ...] = ()
    """Names on the way, the question's own first."""
    evidence: tuple[str, ...] = ()
    """Ids of the passages that answer it."""


def draw_questions(
    graph: KnowledgeGraph,
    encyclopedia: Encyclopedia,
    *,
    seed: int,
    num_train: int,
    num_test: int,
    avoid_common_answers: bool,
) -> dict[str, list[Question]]:
    """Split -> questions. `num_test` counts each kind of each test split; a small world may give fewer.

    Args:
        avoid_common_answers: what training answers more often than average for a final relation is never the answer of
            a test question of two hops and more, and the answers of intersections are spread. For a world whose facts
            are so uneven (most cities lie in few countries) that guessing the commonest answer scores.
    """
    drawer = _Drawer(graph, encyclopedia, seed, avoid_common_answers)
    for kind in KINDS["train"]:
        drawer.draw("train", kind, round(num_train * TRAIN_SHARE[kind]))
    for split in SPLITS[1:]:
        for kind in KINDS[split]:
            drawer.draw(split, kind, num_test)
    return {split: drawer.questions[split] for split in SPLITS}


class _Drawer:
    def __init__(
        self, graph: KnowledgeGraph, encyclopedia: Encyclopedia, seed: int, avoid_common_answers: bool
    ) -> None:
        self._graph, self._encyclopedia, self._seed = graph, encyclopedia, seed
        self._avoids_common_answers = avoid_common_answers
        self._trained: Counter[tuple[Hop, Value]] = Counter()
        """Final relation and answer -> training questions so far."""
        self._finder = ChainFinder(graph, encyclopedia)
        self._chains = self._finder.chains(MAX_DEPTH)
        self._asked: set[str] = set()
        self.questions: defaultdict[str, list[Question]] = defaultdict(list)

    def draw(self, split: str, kind: str, count: int) -> None:
        draws: Mapping[str, Callable[[], Iterator[Question]]] = {
            "1hop": lambda: self._chain_questions(split, kind, 1, lambda path: True),
            "2hop": lambda: self._chain_questions(split, kind, 2, self._is_seen),
            "compare": lambda: self._comparisons(split, kind),
            "composition": lambda: self._chain_questions(split, kind, 2, lambda path: not self._is_seen(path)),
            "depth3": lambda: self._chain_questions(split, kind, 3, lambda path: True),
            "depth4": lambda: self._chain_questions(split, kind, 4, lambda path: True),
            "intersection": lambda: self._intersections(split, kind),
        }
        drawn = 0
        for question in draws[kind]():
            if drawn == count:
                break
            if question.text not in self._asked:
                self._asked.add(question.text)
                self.questions[split].append(question)
                drawn += 1

    def _is_seen(self, path: Path) -> bool:
        """All its bigrams may occur in training."""
        return all(
            stable_choice(self._seed, "bigram", tuple(map(tuple, pair)), n=100) >= HELD_OUT_BIGRAMS
            for pair in pairwise(path)
        )

    def _belongs(self, entity: str, split: str) -> bool:
        held_out = stable_choice(self._seed, "entity", entity, n=100) < HELD_OUT_ENTITIES
        return held_out != (split == "train")

    def _rng(self, *key: str) -> random.Random:
        return random.Random(f"{self._seed} {' '.join(key)}")

    def _chain_questions(
        self, split: str, kind: str, depth: int, accepts: Callable[[Path], bool]
    ) -> Iterator[Question]:
        """Round-robin over relation paths, else 7,060 airports swamp everything. On test splits the answers of a final
        relation are spread too, so that always guessing its commonest answer does not score."""
        rng = self._rng(split, kind)
        avoided = self._common_answers() if split != "train" and depth > 1 else frozenset()
        pools: list[tuple[Path, list[Chain]]] = []
        for path in sorted(path for path in self._chains if len(path) == depth and accepts(path)):
            pool = [
                chain
                for chain in self._chains[path]
                if self._belongs(chain.start, split) and (path[-1], chain.results[-1]) not in avoided
            ]
            rng.shuffle(pool)
            pools.append((path, pool))
        used: Counter[tuple[Hop, Value]] = Counter()
        while pools:
            pools = [(path, pool) for path, pool in pools if pool]
            for path, pool in pools:
                chain = pool.pop() if split == "train" else _pop_rarest_answer(pool, path[-1], used)
                used[path[-1], chain.results[-1]] += 1
                if split == "train":
                    self._trained[path[-1], chain.results[-1]] += 1
                yield self._chain_question(split, kind, path, chain)

    def _common_answers(self) -> frozenset[tuple[Hop, Value]]:
        """Those that training gives more often than the average answer of their relation."""
        if not self._avoids_common_answers:
            return frozenset()
        counts: defaultdict[Hop, list[int]] = defaultdict(list)
        for (hop, _), count in self._trained.items():
            counts[hop].append(count)
        mean = {hop: sum(values) / len(values) for hop, values in counts.items()}
        return frozenset((hop, value) for (hop, value), count in self._trained.items() if count > mean[hop])

    def _chain_question(self, split: str, kind: str, path: Path, chain: Chain) -> Question:
        phrase = in_a_phrase(self._graph.name[chain.start], self._graph.type[chain.start])
        for hop in path:
            phrase = hop.phrase(phrase)
        names = [self._finder.show(hop, value) for hop, value in zip(path, chain.results, strict=True)]
        is_entity = str(chain.results[-1]) in self._graph.name
        return Question(
            id="",
            text=chain_question(phrase, path[-1].answer_type),
            answers=self._entity_answers(str(chain.results[-1])) if is_entity else _accepted(names[-1]),
            kind=kind,
            split=split,
            path=tuple((hop.relation, hop.inverse) for hop in path),
            entities=(self._graph.name[chain.start], *names),
            evidence=chain.evidence,
        )

    def _comparisons(self, split: str, kind: str) -> Iterator[Question]:
        rng, graph = self._rng(split, kind), self._graph
        pools = []
        for rule in COMPARISONS:
            pool = [
                entity
                for entity in sorted(self._finder.unique_names)
                if graph.type[entity] == rule.type
                and graph.only_object(entity, rule.relation) is not None
                and self._belongs(entity, split)
            ]
            if len(pool) > 1:
                pools.append((rule, pool))
        for attempt in range(1_000_000 if pools else 0):
            rule, pool = pools[attempt % len(pools)]
            a, b = rng.sample(pool, 2)
            values = {entity: graph.objects[entity, rule.relation][0] for entity in (a, b)}
            if values[a] == values[b]:
                continue
            winner = max(a, b, key=lambda entity: int(values[entity]))
            yield Question(
                id="",
                text=COMPARISON_QUESTION.format(type=rule.type, what=rule.what, a=graph.name[a], b=graph.name[b]),
                answers=self._entity_answers(winner),
                kind=kind,
                split=split,
                path=((rule.relation, False),) * 2,
                entities=(graph.name[a], graph.name[b]),
                evidence=tuple(self._encyclopedia.stated_in[e, rule.relation, values[e]] for e in (a, b)),
            )

    def _intersections(self, split: str, kind: str) -> Iterator[Question]:
        graph, relation = self._graph, INTERSECTION_RELATION
        countries = [e for e in sorted(self._finder.unique_names) if graph.type[e] == "country"]
        neighbours = {e: set(graph.objects.get((e, relation), ())) for e in countries}
        found = [
            (a, b, str(*common))
            for a, b in combinations(countries, 2)
            if len(common := neighbours[a] & neighbours[b]) == 1 and min(len(neighbours[a]), len(neighbours[b])) > 1
        ]
        found = [(a, b, z) for a, b, z in found if z in self._finder.unique_names]
        self._rng(split, kind).shuffle(found)
        if self._avoids_common_answers:
            found = _spread(found)
        for a, b, z in found:
            yield Question(
                id="",
                text=INTERSECTION_QUESTION.format(a=graph.name[a], b=graph.name[b]),
                answers=self._entity_answers(z),
                kind=kind,
                split=split,
                path=((relation, False),) * 2,
                entities=(graph.name[a], graph.name[b], graph.name[z]),
                evidence=tuple(self._encyclopedia.stated_in[e, relation, z] for e in (a, b)),
            )

    def _entity_answers(self, entity: str) -> tuple[str, ...]:
        return _accepted(self._graph.name[entity], *self._graph.aliases[entity])


def _accepted(*names: str) -> tuple[str, ...]:
    """The names, and each without diacritics, once each."""
    forms = [form for name in names for form in (name, without_diacritics(name))]
    return tuple(dict.fromkeys(form for form in forms if normalise(form)))


def _spread(found: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """In rounds: no answer (the last item) comes once more before every other one has had its turn."""
    seen: Counter[str] = Counter()
    rounds = []
    for item in found:
        rounds.append((seen[item[-1]], item))
        seen[item[-1]] += 1
    return [item for _, item in sorted(rounds, key=lambda entry: entry[0])]


def _pop_rarest_answer(pool: list[Chain], last: Hop, used: Counter[tuple[Hop, Value]]) -> Chain:
    """Take out the first chain among those whose answer was given least often."""
    rarest = min(range(len(pool)), key=lambda i: used[last, pool[i].results[-1]])
    return pool.pop(rarest)
