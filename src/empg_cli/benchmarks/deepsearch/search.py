"""The search engine that a config asks for."""

from __future__ import annotations

from pathlib import Path

from empg_cli.benchmarks.deepsearch.corpus import build_command
from empg_cli.benchmarks.deepsearch.manifest import MANIFEST, read_manifest
from empg_cli.benchmarks.deepsearch.retrieval.base import Retriever
from empg_cli.benchmarks.deepsearch.retrieval.sharing import SharedRetriever
from empg_cli.benchmarks.deepsearch.store import StoredWorld
from empg_cli.config import deepsearch as schema
from empg_cli.errors import DataError


def make_retriever(settings: schema.Retrieval, world: StoredWorld | None) -> Retriever:
    """Engines are imported here, so that only the chosen one has to be installed.

    Args:
        world: the generated world; embedded engines without an `index_dir` search it.
    """
    match settings:
        case schema.EmbeddedRetrieval():
            return _open(_index_dir(settings, world), settings.engine)
        case schema.DenseRetrieval():
            from empg_cli.benchmarks.deepsearch.retrieval.dense import DenseRetriever

            return DenseRetriever(Path(settings.index_dir).expanduser(), device=settings.device)
        case schema.HttpRetrieval():
            from empg_cli.benchmarks.deepsearch.retrieval.search_r1 import HttpRetriever

            return SharedRetriever(HttpRetriever(settings))
        case schema.OpenSearchRetrieval():
            from empg_cli.benchmarks.deepsearch.retrieval.opensearch import OpenSearchRetriever

            return SharedRetriever(OpenSearchRetriever(settings))
        case schema.QdrantRetrieval():
            from empg_cli.benchmarks.deepsearch.retrieval.qdrant import QdrantRetriever

            return SharedRetriever(QdrantRetriever(settings))
        case schema.WebRetrieval():
            from empg_cli.benchmarks.deepsearch.web.retriever import WebRetriever

            return WebRetriever(settings)


def open_index(directory: Path) -> Retriever:
    """The index in a folder, with the engine that its manifest names."""
    return _open(directory, read_manifest(directory)["engine"])


def _open(directory: Path, engine: str) -> Retriever:
    match engine:
        case "tantivy":
            from empg_cli.benchmarks.deepsearch.retrieval.tantivy import TantivyRetriever

            return TantivyRetriever(directory)
        case "bm25s":
            from empg_cli.benchmarks.deepsearch.retrieval.bm25s import Bm25sRetriever

            return Bm25sRetriever(directory)
        case "dense":
            from empg_cli.benchmarks.deepsearch.retrieval.dense import DenseRetriever

            return DenseRetriever(directory, device="auto")
        case _:
            raise DataError(f"unknown search engine {engine!r}; embedded ones: tantivy, bm25s, dense")


def _index_dir(settings: schema.EmbeddedRetrieval, world: StoredWorld | None) -> Path:
    if settings.index_dir:
        directory = Path(settings.index_dir).expanduser()
        if not (directory / MANIFEST).is_file():
            raise DataError(
                f"benchmark.retrieval.index_dir={directory} holds no finished index; build it: "
                + build_command(directory, "--engine", settings.engine)
            )
        return directory
    if world is None:
        raise DataError(
            "official questions need something to search: benchmark.retrieval.index_dir=DIR (built by "
            f"`{build_command('DIR')}`), or another engine such as "
            "retrieval@benchmark.retrieval=http"
        )
    return world.index_dir(settings.engine)
