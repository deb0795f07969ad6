"""Search, text similarity and goals against slow, literal transcriptions of their definitions."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.benchmarks.webshop.analyzer import analyze
from empg_cli.benchmarks.webshop.bm25 import build_index, stored_length
from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.benchmarks.webshop.nouns import make_tagger
from empg_cli.benchmarks.webshop.reward import token_set_ratio
from empg_cli.benchmarks.webshop.shop import open_in_memory

WORDS = ["red", "blue", "shoes", "shoe", "lamp", "the", "wood", "solid", "running"]
documents = st.lists(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join), min_size=1, max_size=12)
queries = st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=6).map(" ".join)


def slow_search(texts: list[str], ids: list[str], query: str, limit: int) -> list[int]:
    """BM25, document by document and term by term, in float32 as Lucene scores."""
    bags = [Counter(analyze(text)) for text in texts]
    mean_length = np.float32(sum(bag.total() for bag in bags) / len(bags))
    scores: dict[int, np.float32] = {}
    for term, repeats in Counter(analyze(query)).items():
        df = sum(term in bag for bag in bags)
        idf = np.float32(math.log(1 + (len(bags) - df + 0.5) / (df + 0.5)))
        for document, bag in enumerate(bags):
            if term in bag:
                length = np.float32(stored_length(bag.total()))
                norm = np.float32(1) / (
                    np.float32(0.9) * ((np.float32(1) - np.float32(0.4)) + np.float32(0.4) * length / mean_length)
                )
                gain = idf - idf / (np.float32(1) + np.float32(bag[term]) * norm)
                scores[document] = scores.get(document, np.float32(0)) + gain * np.float32(repeats)
    return sorted(scores, key=lambda document: (-scores[document], ids[document]))[:limit]


@given(texts=documents, query=queries, limit=st.integers(1, 12), seed=st.integers(0, 99))
@settings(deadline=None)
def test_search(texts: list[str], query: str, limit: int, seed: int) -> None:
    ids = [f"B{number:03d}" for number in range(len(texts))]
    random.Random(seed).shuffle(ids)
    assert build_index(texts, ids).search(query, limit) == slow_search(texts, ids, query, limit)


def slow_similarity(left: str, right: str) -> float:
    """100 * (1 - insertions and deletions / total length), by the textbook table of the longest common subsequence."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, j in itertools.product(range(len(left)), range(len(right))):
        table[i + 1][j + 1] = table[i][j] + 1 if left[i] == right[j] else max(table[i][j + 1], table[i + 1][j])
    total = len(left) + len(right)
    return 100 * (1 - (total - 2 * table[-1][-1]) / total)


def slow_token_set_ratio(left: str, right: str) -> float:
    a, b = set(left.lower().split()), set(right.lower().split())
    if not a or not b:
        return 0
    if a & b and (a <= b or b <= a):
        return 100
    common = sorted(a & b)
    first, second = " ".join(common + sorted(a - b)), " ".join(common + sorted(b - a))
    pairs = [(first, second)]
    if common:
        pairs += [(" ".join(common), first), (" ".join(common), second)]
    return max(slow_similarity(*pair) for pair in pairs)


texts = st.lists(st.text(alphabet="abcdeX1", min_size=1, max_size=6), max_size=4).map(" ".join)


@given(left=texts, right=texts)
@settings(deadline=None)
def test_token_set_ratio(left: str, right: str) -> None:
    # half a unit of rounding, and a hair for the other order of the arithmetic
    assert abs(token_set_ratio(left, right) - slow_token_set_ratio(left, right)) <= 0.5 + 1e-9


def test_synthetic_goals() -> None:
    """As the official server makes them: a list of all goals, one generator for prices and ceilings, one shuffle."""
    products = list(generate(120, seed=5))
    rng = random.Random(11)
    prices = {p.asin: p.prices[0] if len(p.prices) == 1 else rng.uniform(p.prices[0], p.prices[1]) for p in products}
    expected = []
    for product in products:
        if product.instruction is None:
            continue
        ceilings = [10.0 * n for n in range(1, 100) if 10.0 * n > prices[product.asin]][:4]
        ceiling = max(rng.sample(ceilings, 2)) if len(ceilings) > 1 else 1_000_000
        suffix = f", and price lower than {ceiling:.2f} dollars" if len(ceilings) > 1 else ""
        names = sorted(product.options)
        for values in itertools.product(*(product.options[name] for name in names)):
            wanted = ", and ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
            text = product.instruction + (f" with {wanted}" if wanted else "") + suffix
            expected.append((product.asin, text, tuple(zip(names, values, strict=True)), ceiling))
    random.Random(233).shuffle(expected)

    shop = open_in_memory(products, "synthetic", make_tagger("words"), price_seed=11)
    assert [(goal.asin, goal.instruction, goal.options, goal.price_ceiling) for goal in shop.goals] == expected
    assert list(shop.prices) == list(prices.values())
