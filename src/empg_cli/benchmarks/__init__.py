"""Benchmarks by name."""

from __future__ import annotations

from typing import Any

from empg_cli.benchmarks.base import Benchmark

_BELONGS_ELSEWHERE = frozenset({"split", "eval_tasks", "invalid_action_penalty", "invalid_action_scope"})
"""Keys of a benchmark node that evaluation and rollout read."""


def make_benchmark(name: str, **keys: Any) -> Benchmark:
    """The benchmark of conf/benchmark/<name>.yaml, given the keys of that node."""
    own = {key: value for key, value in keys.items() if key not in _BELONGS_ELSEWHERE}
    match name:
        case "alfworld":
            from empg_cli.benchmarks.alfworld.benchmark import AlfworldBenchmark

            return AlfworldBenchmark(**own)
        case "webshop":
            from empg_cli.benchmarks.webshop.benchmark import WebShopBenchmark

            return WebShopBenchmark(**own)
        case "deepsearch":
            from empg_cli.benchmarks.deepsearch.benchmark import DeepSearchBenchmark

            return DeepSearchBenchmark(**own)
        case _:
            raise ValueError(f"unknown benchmark {name!r}; known: alfworld, webshop, deepsearch")
