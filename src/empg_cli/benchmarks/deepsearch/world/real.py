"""The `real` world: countries, cities, airports, elements, distilled once into package data."""

from __future__ import annotations

import gzip
import hashlib
import json
from importlib.resources import files

from empg_cli.benchmarks.deepsearch.world.graph import KnowledgeGraph


def _packed() -> bytes:
    return files("empg_cli.benchmarks.deepsearch").joinpath("data", "facts.jsonl.gz").read_bytes()


def facts_digest() -> str:
    return hashlib.sha256(_packed()).hexdigest()[:16]


def real_graph() -> KnowledgeGraph:
    """The graph of the facts file (built by `scripts/build_deepsearch_facts.py`)."""
    rows = [json.loads(line) for line in gzip.decompress(_packed()).decode().split("\n")]
    graph = KnowledgeGraph()
    for row in rows:
        graph.add_entity(row["id"], row["type"], row["name"], row.get("aliases", ()))
    for row in rows:
        for relation, values in row["facts"].items():
            for value in values:
                graph.add_fact(row["id"], relation, value)
    return graph
