"""BM25 by bm25s: numpy only, memory-mapped; the fallback where tantivy has no wheel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from empg_cli.benchmarks.deepsearch.corpus import Passage, PassageStore, build_command
from empg_cli.benchmarks.deepsearch.manifest import read_manifest
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, query_words, words_of
from empg_cli.errors import DataError
from empg_cli.extras import install_command
from empg_cli.reading.guard import reading

_WORD = r"\S\S+"
"""The texts are words already; bm25s drops those of one letter."""


def _package() -> Any:
    try:
        import bm25s
    except ImportError:
        raise DataError(
            f"benchmark.retrieval.engine=bm25s needs the package bm25s: {install_command('bm25s')}"
        ) from None
    return bm25s


class Bm25sRetriever:
    name = "bm25s"
    is_local = True

    def __init__(self, directory: Path) -> None:
        self._bm25s = _package()
        if not (directory / "bm25s").is_dir():
            raise DataError(
                f"{directory} holds no bm25s index; build it: " + build_command(directory, "--engine", "bm25s")
            )
        self._manifest = read_manifest(directory)
        self.store = PassageStore(directory)
        with reading(directory / "bm25s", f"Build it again: {build_command(directory, '--engine', 'bm25s')}"):
            self._index = self._bm25s.BM25.load(str(directory / "bm25s"), mmap=True)

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        return [self._search(query, top_k) for query in queries]

    def _search(self, query: str, top_k: int) -> list[Hit]:
        words = " ".join(query_words(query))
        if not words:
            return []
        tokens = self._bm25s.tokenize(
            [words], token_pattern=_WORD, stopwords="en", show_progress=False, return_ids=False
        )
        k = min(top_k, len(self.store))
        rows, scores = self._index.retrieve(tokens, k=k, show_progress=False)
        found = zip(rows[0], scores[0], strict=True)
        return [self._hit(int(row), float(score)) for row, score in found if score > 0]

    def _hit(self, row: int, score: float) -> Hit:
        passage = self.store[row]
        return Hit(passage.id, passage.title, passage.text, score, passage.url)

    async def open(self, id_: str) -> Hit | None:
        page = self.store.page(id_)
        return Hit(page.id, page.title, page.text, url=page.url) if page else None

    async def check(self) -> None:
        """An index that opened answers."""

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": self.name, **self._manifest}

    async def close(self) -> None:
        """Nothing to release: the files are memory-mapped."""


def build_bm25s(store: PassageStore, directory: Path, progress: Callable[[int], None] = lambda rows: None) -> None:
    """Index every passage into `directory/bm25s`. The tokenised corpus is held in memory while building."""
    package = _package()
    tokens = package.tokenize(
        [_text(passage) for passage in store], token_pattern=_WORD, stopwords="en", show_progress=False
    )
    index = package.BM25()
    index.index(tokens, show_progress=False)
    index.save(str(directory / "bm25s"))
    progress(len(store))


def _text(passage: Passage) -> str:
    """The title counts twice, about tantivy's boost of 1."""
    return " ".join(words_of(f"{passage.title} {passage.title} {passage.text}"))
