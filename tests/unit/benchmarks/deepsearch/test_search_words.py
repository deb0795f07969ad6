"""What the embedded engines take for a word: no word ends at a combining mark, and spellings of one text are one."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.index import build_index
from empg_cli.benchmarks.deepsearch.retrieval.base import Retriever, Runner, query_words
from empg_cli.benchmarks.deepsearch.retrieval.bm25s import Bm25sRetriever
from empg_cli.benchmarks.deepsearch.retrieval.tantivy import TantivyRetriever

PASSAGES = [
    Passage("0", "\u0130stanbul", "A city."),
    Passage("1", unicodedata.normalize("NFD", "Malm\u00f6"), "Another city."),
    Passage("2", "\u0939\u093f\u0928\u094d\u0926\u0940", "A language."),  # Hindi, with marks that spell
    Passage("3", "Stanbul", "No city."),
    Passage("4", "\u0939", "A letter."),
]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("\u0130stanbul", ["istanbul"]),
        ("I\u0307stanbul", ["istanbul"]),
        ("i\u0307stanbul", ["istanbul"]),
        ("Malmo\u0308 (city)", ["malm\u00f6", "city"]),
        ("q\u0323x it's", ["qx", "it", "s"]),  # no composed form
        ("co\u00adop a_b", ["coop", "a_b"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940?", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
    ],
)
def test_words_of_a_query(query: str, words: list[str]) -> None:
    assert query_words(query) == words


@pytest.fixture(scope="module", params=["tantivy", "bm25s"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    folder: Path = tmp_path_factory.mktemp("index") / request.param
    build_index(PASSAGES, folder, request.param)
    return TantivyRetriever(folder) if request.param == "tantivy" else Bm25sRetriever(folder)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("\u0130stanbul", "0"),
        ("I\u0307stanbul", "0"),
        ("i\u0307stanbul", "0"),
        ("istanbul", "0"),
        ("stanbul", "3"),
        ("Malm\u00f6", "1"),
        ("Malmo\u0308", "1"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "2"),
    ],
)
def test_every_spelling_finds_its_passage_and_no_other(engine: Retriever, query: str, found: str) -> None:
    hits = Runner(is_local=True).run(engine.search([query], 5))[0]
    assert [hit.id for hit in hits] == [found]
