"""Benchmarks by name, or by the factory of somebody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.problems import ConfigError, Problem, did_you_mean
from empg_cli.errors import UserError

_BELONGS_ELSEWHERE = frozenset({"split", "eval_tasks", "invalid_action_penalty", "invalid_action_scope"})
"""Keys of a benchmark node that evaluation and rollout read."""


def make_benchmark(name: str | None = None, *, target: str | None = None, **keys: Any) -> Benchmark:
    """A benchmark with these keys of conf/benchmark/<name>.yaml; those left out are as that file has them.

    Args:
        target: package.module:factory, for a benchmark from outside (docs/adding-a-benchmark.md); `name` is then free,
            and by default that of the module, as on the command line.

    Raises:
        ConfigError: a key is unknown, or a value is out of range.
        ValueError: there is no such benchmark.
    """
    if target is not None:
        from empg_cli.config.targets import default_name

        return _from_outside({**keys, "name": name or default_name(target) or "custom", "target": target})
    match name:
        case None:
            raise ValueError(
                "a benchmark needs a name (alfworld, webshop, deepsearch) or target=package.module:factory"
            )
        case "alfworld":
            from empg_cli.benchmarks.alfworld.benchmark import AlfworldBenchmark

            return AlfworldBenchmark(**_own(name, keys))
        case "webshop":
            from empg_cli.benchmarks.webshop.benchmark import WebShopBenchmark

            return WebShopBenchmark(**_own(name, keys))
        case "deepsearch":
            from empg_cli.benchmarks.deepsearch.benchmark import DeepSearchBenchmark

            return DeepSearchBenchmark(**_own(name, keys))
        case _:
            from empg_cli.config.targets import BENCHMARKS, installed

            if name in (others := installed(BENCHMARKS)):
                return _from_outside({**keys, "name": name, "target": name})
            known = ["alfworld", "webshop", "deepsearch", *others]
            near = f"{question} " if (question := did_you_mean(name, known)) else ""
            raise ValueError(
                f"unknown benchmark {name!r}; {near}known: {', '.join(known)}; or give target=package.module:factory"
            )


def data_facts(benchmark: Benchmark) -> dict[str, Any]:
    """The fingerprint with the benchmark's name, as runs and evaluations record it."""
    return {"name": benchmark.name, **benchmark.fingerprint()}


def _own(name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that the class reads. A call with all of them, as every command makes it, has been checked before."""
    from empg_cli.config.benchmarks import Alfworld, Webshop
    from empg_cli.config.deepsearch import Deepsearch
    from empg_cli.config.node import BenchmarkNode

    schemas: dict[str, type[BenchmarkNode]] = {"alfworld": Alfworld, "webshop": Webshop, "deepsearch": Deepsearch}
    schema = schemas[name]
    read = set(schema.model_fields) - {"name"} - _BELONGS_ELSEWHERE
    if not read <= keys.keys() or keys.keys() - set(schema.model_fields):
        from empg_cli.config.compose import benchmark_node

        keys = benchmark_node(name, keys).model_dump()
    return {key: value for key, value in keys.items() if key in read}


def _from_outside(settings: Mapping[str, Any]) -> Benchmark:
    from empg_cli.config.outside import benchmark_of

    made, name, target = benchmark_of(settings), settings["name"], settings["target"]
    lacks = [part for part in ("tasks", "make_env", "expert", "fingerprint") if not callable(getattr(made, part, None))]
    lacks += [part for part in ("name", "splits") if not hasattr(made, part)]
    if lacks:
        raise _unfit(target, f"what it has made, {type(made).__name__}, lacks {', '.join(lacks)}")
    assert isinstance(made, Benchmark)
    if made.name != name:
        raise _unfit(target, f"its name is {made.name!r}, not that of its settings, {name!r}")
    for split in dict.fromkeys(["train", settings.get("split", "train")]):
        if split not in made.splits:
            raise _unfit(target, f"it has no split {split}, only {', '.join(made.splits)}")
        if not len(made.tasks(split)):
            raise _unfit(target, f"its split {split} has no tasks")
    if missing := {"source"} - made.fingerprint().keys():
        raise _unfit(target, f"its fingerprint lacks {', '.join(missing)}")
    return made


def _unfit(target: str, what: str) -> UserError:
    hint = "see docs/adding-a-benchmark.md"
    return ConfigError("The benchmark cannot be played", [Problem("benchmark.target", what, target, hint)])
