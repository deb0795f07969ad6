"""Building the index directory that the embedded engines open: the corpus, the engine's files, a manifest.

index.json         the manifest (`manifest.py`); written last, so a folder with it is complete
passages.jsonl ... the corpus (`corpus.py`)
tantivy/ | bm25s/ | dense/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from empg_cli.benchmarks.deepsearch.corpus import Passage, PassageStore, write_corpus
from empg_cli.benchmarks.deepsearch.manifest import write_manifest
from empg_cli.errors import DataError

EmbeddedEngine = Literal["tantivy", "bm25s", "dense"]
Progress = Callable[[str, int], None]
"""Called with the phase (`corpus`, or the engine's name) and the passages done so far."""


def build_index(
    passages: Iterable[Passage],
    directory: Path,
    engine: EmbeddedEngine = "tantivy",
    *,
    progress: Progress = lambda phase, rows: None,
    dense: Mapping[str, Any] | None = None,
) -> PassageStore:
    """Write corpus and index to an empty or new directory.

    Args:
        dense: keyword arguments of `retrieval.dense.build_dense` (encoder and its settings); read by `dense` only.
    """
    if directory.exists() and any(directory.iterdir()):
        raise DataError(f"{directory} is not empty; give another --out or delete it first")
    digest = hashlib.sha256()
    store = write_corpus(_counted(passages, digest, progress), directory)

    def report(rows: int) -> None:
        progress(engine, rows)

    match engine:
        case "tantivy":
            from empg_cli.benchmarks.deepsearch.retrieval.tantivy import build_tantivy

            build_tantivy(store, directory, report)
        case "bm25s":
            from empg_cli.benchmarks.deepsearch.retrieval.bm25s import build_bm25s

            build_bm25s(store, directory, report)
        case "dense":
            from empg_cli.benchmarks.deepsearch.retrieval.dense import build_dense

            build_dense(store, directory, progress=report, **(dense or {}))
    package = {"tantivy": "tantivy", "bm25s": "bm25s", "dense": "faiss-cpu"}[engine]
    manifest = {
        "engine": engine,
        "version": version(package),
        "passages": len(store),
        "digest": digest.hexdigest()[:16],
    }
    write_manifest(directory, manifest)
    return store


def _counted(passages: Iterable[Passage], digest: Any, progress: Progress) -> Iterable[Passage]:
    row = 0
    for row, passage in enumerate(passages, start=1):
        digest.update(json.dumps([passage.id, passage.title, passage.text], ensure_ascii=False).encode())
        yield passage
        if row % 1000 == 0:
            progress("corpus", row)
    progress("corpus", row)
