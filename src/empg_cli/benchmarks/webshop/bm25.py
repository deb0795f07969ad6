"""BM25 as Lucene 8 computes it with Anserini's defaults, over postings that may live in memory or in mapped files."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from empg_cli.benchmarks.webshop.analyzer import analyze

K1 = 0.9
B = 0.4


class TermTable(Protocol):
    """Term to its row in the postings."""

    def get(self, term: str, /) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Postings:
    """Terms are numbered in the order of their UTF-8 bytes; postings of term t are rows start[t] to start[t + 1]."""

    start: NDArray[np.int64]
    document: NDArray[np.int32]
    impact: NDArray[np.float32]
    """What one occurrence of the term in a query adds to the document's score."""
    tie_rank: NDArray[np.int32]
    """By document: its place among all ids in string order; equal scores are listed in this order."""


class Index:
    """Search over documents numbered 0, 1, ..."""

    def __init__(self, terms: TermTable, postings: Postings) -> None:
        self._terms = terms
        self._postings = postings

    def search(self, query: str, limit: int) -> list[int]:
        """The best documents first; none that shares no term with the query. A repeated word counts twice."""
        rows: Counter[int] = Counter()
        for term in analyze(query):
            if (row := self._terms.get(term)) is not None:
                rows[row] += 1
        if not rows:
            return []
        postings = self._postings
        score = np.zeros(len(postings.tie_rank), dtype=np.float32)
        for row, repeats in rows.items():
            here = slice(int(postings.start[row]), int(postings.start[row + 1]))
            score[postings.document[here]] += postings.impact[here] * np.float32(repeats)
        hits = np.flatnonzero(score)
        if len(hits) > limit:
            worst_kept = np.partition(score[hits], len(hits) - limit)[len(hits) - limit]
            hits = hits[score[hits] >= worst_kept]
        order = np.lexsort((postings.tie_rank[hits], -score[hits]))[:limit]
        return [int(document) for document in hits[order]]


def build_postings(documents: Iterable[str], ids: Sequence[str]) -> tuple[list[str], Postings]:
    """Sorted terms and their postings, in one pass. `ids` is read after the last document: both may grow together."""
    number_of: dict[str, int] = {}
    terms, docs, counts, lengths = array("i"), array("i"), array("i"), array("i")
    for document, text in enumerate(documents):
        found = analyze(text)
        lengths.append(len(found))
        for term, count in Counter(found).items():
            terms.append(number_of.setdefault(term, len(number_of)))
            docs.append(document)
            counts.append(count)

    sorted_terms = sorted(number_of, key=lambda term: term.encode("utf-8", "surrogatepass"))
    rank = np.empty(len(sorted_terms), dtype=np.int32)
    rank[np.array([number_of[term] for term in sorted_terms], dtype=np.intp)] = np.arange(len(sorted_terms))
    posting_term = rank[_numbers(terms)]
    order = np.argsort(posting_term, kind="stable")
    frequency = np.bincount(posting_term, minlength=len(sorted_terms))
    start = np.concatenate(([0], np.cumsum(frequency))).astype(np.int64)
    document_of = _numbers(docs)[order]
    impact = _impacts(frequency, _numbers(counts)[order], document_of, _numbers(lengths))
    tie_rank = np.empty(len(ids), dtype=np.int32)
    tie_rank[np.argsort(np.array(list(ids), dtype=np.str_), kind="stable")] = np.arange(len(ids))
    return sorted_terms, Postings(start, document_of, impact, tie_rank)


def build_index(documents: Iterable[str], ids: Sequence[str]) -> Index:
    terms, postings = build_postings(documents, ids)
    return Index({term: row for row, term in enumerate(terms)}, postings)


def _impacts(
    frequency: NDArray[np.int64], count: NDArray[Any], document: NDArray[Any], length: NDArray[Any]
) -> NDArray[np.float32]:
    """idf * tf / (tf + k1 (1 - b + b length / mean length)), in Lucene's float32 arithmetic and order of operations.

    Args:
        frequency: documents that hold each term.
        count, document: by posting, sorted by term.
        length: terms in each document.
    """
    one = np.float32(1)
    mean_length = np.float32(max(1, length.sum()) / max(1, len(length)))
    stored = np.array([stored_length(int(n)) for n in length], dtype=np.float32)
    inverse_norm = one / (np.float32(K1) * ((one - np.float32(B)) + np.float32(B) * stored / mean_length))
    idf = [math.log(1 + (len(length) - n + 0.5) / (n + 0.5)) for n in frequency]
    weight = np.repeat(np.array(idf, dtype=np.float32), frequency)
    impact: NDArray[np.float32] = weight - weight / (one + count.astype(np.float32) * inverse_norm[document])
    return impact.astype(np.float32, copy=False)


def stored_length(terms: int) -> int:
    """A document's length as Lucene reads it back from its one byte: exact below 40, then a 4-bit mantissa."""
    excess = terms - 24
    if excess < 8:
        return terms
    shift = excess.bit_length() - 4
    return 24 + ((excess >> shift) << shift)


def _numbers(values: array[int]) -> NDArray[np.int32]:
    return np.frombuffer(values, dtype=np.int32) if len(values) else np.zeros(0, dtype=np.int32)
