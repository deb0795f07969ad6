"""The default engine: BM25 by tantivy, embedded and memory-mapped (17 MB wheel, no dependencies)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from empg_cli.benchmarks.deepsearch.corpus import PassageStore, build_command
from empg_cli.benchmarks.deepsearch.manifest import read_manifest
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, query_words, searchable
from empg_cli.errors import DataError
from empg_cli.extras import pip_install
from empg_cli.reading.guard import reading

try:
    import tantivy
except ImportError:
    raise DataError(
        "Deep Search needs the package tantivy, which empg-cli installs where it has a wheel: " + pip_install("tantivy")
    ) from None

TITLE_WEIGHT: Final = 2
"""Times that a title counts in its passage. One field with the title in it answers half as fast again as two fields,
and of the real world's 6,410 questions the expert then misses 33 / 20 / 17 at weight 1 / 2 / 3, with 3.32 / 3.33 / 3.34
steps an episode."""
MAX_QUERY_WORDS: Final = 64
WRITER_HEAP_BYTES: Final = 128_000_000
_ANALYZER: Final = "empg_en"


class TantivyRetriever:
    name = "tantivy"
    is_local = True

    def __init__(self, directory: Path) -> None:
        if not (directory / "tantivy" / "meta.json").is_file():
            raise DataError(
                f"{directory} holds no tantivy index; build it: " + build_command(directory, "--engine", "tantivy")
            )
        self._manifest = read_manifest(directory)
        self.store = PassageStore(directory)
        with reading(directory / "tantivy", f"Build it again: {build_command(directory, '--engine', 'tantivy')}"):
            self._index = tantivy.Index.open(str(directory / "tantivy"))
            self._index.register_tokenizer(_ANALYZER, _analyzer())
            self._searcher = self._index.searcher()
        if self._searcher.num_docs != len(self.store):
            raise DataError(
                f"{directory}: the index has {self._searcher.num_docs:,} documents, the corpus {len(self.store):,} "
                "passages; an interrupted build? Delete the folder and build it again"
            )

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        return [self._search(query, top_k) for query in queries]

    def _search(self, query: str, top_k: int) -> list[Hit]:
        words = list(dict.fromkeys(query_words(query)))[:MAX_QUERY_WORDS]
        if not words:
            return []
        # The words are bare (no grammar characters, no upper-case operator), so the parser only splits and analyses.
        parsed, _ = self._index.parse_query_lenient(" ".join(words), ["text"])
        found = self._searcher.search(parsed, top_k, count=False).hits  # count=True would score every match
        rows = self._searcher.fast_field_values("row", [address for _, address in found])
        ranked = [(float(score), int(row)) for (score, _), row in zip(found, rows, strict=True)]  # type: ignore[arg-type]
        return [self._hit(row, score) for score, row in sorted(ranked, key=lambda pair: (-pair[0], pair[1]))]

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


def build_tantivy(store: PassageStore, directory: Path, progress: Callable[[int], None] = lambda rows: None) -> None:
    """Index every passage of the store into `directory/tantivy`. One writer thread, so that row order decides ties the
    same way on every machine."""
    path = directory / "tantivy"
    path.mkdir(parents=True)
    schema = tantivy.SchemaBuilder()
    schema.add_unsigned_field("row", fast=True)
    schema.add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
    index = tantivy.Index(schema.build(), path=str(path))
    index.register_tokenizer(_ANALYZER, _analyzer())
    writer = index.writer(WRITER_HEAP_BYTES, num_threads=1)
    for row, passage in enumerate(store):
        document = tantivy.Document()
        document.add_unsigned("row", row)
        document.add_text("text", searchable(f"{passage.title} " * TITLE_WEIGHT + passage.text))
        writer.add_document(document)
        if row % 1000 == 999:
            progress(row + 1)
    writer.commit()
    writer.wait_merging_threads()
    progress(len(store))


def _analyzer() -> tantivy.TextAnalyzer:
    """Words with the marks in them (tantivy's own tokeniser breaks there), letters without diacritics, lower case, no
    English stop words (a whole question then takes 0.6 ms, not 1.9 ms), Porter stems."""
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(r"[\p{Alphabetic}\p{N}\p{M}]+"))
        .filter(tantivy.Filter.remove_long(64))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
        .filter(tantivy.Filter.stopword("english"))
        .filter(tantivy.Filter.stemmer("english"))
        .build()
    )
