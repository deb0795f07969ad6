"""A benchmark with its settings, for code that plays it outside of any command."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from empg_cli.benchmarks import base, make_benchmark
from empg_cli.config import outside
from empg_cli.config.benchmarks import Benchmark
from empg_cli.config.compose import benchmark_node
from empg_cli.errors import UserError
from empg_cli.rollout.episode import EpisodeRules
from empg_cli.types import Task

OURS = ("alfworld", "webshop", "deepsearch")


def opened(name: str, *, target: str | None = None, **keys: Any) -> tuple[base.Benchmark, Benchmark]:
    """
    Args:
        name: alfworld, webshop, deepsearch, or that of an installed package's.
        target: package.module:factory of a benchmark from outside (docs/adding-a-benchmark.md).
        keys: settings of the benchmark, as those of conf/benchmark; those left out are as there.

    Raises:
        ConfigError: a key is unknown, or a value is out of range.
        ValueError: there is no such benchmark.
    """
    if target is None and name in OURS:
        settings = benchmark_node(name, keys)
        return make_benchmark(**settings.model_dump()), settings  # type: ignore[return-value]
    played = make_benchmark(name, target=target, **keys)
    values = {"benchmark": {**keys, "name": played.name, "target": target or name}}
    outside.check(values)  # fills in the defaults; what is wrong was said above
    return played, TypeAdapter[Benchmark](Benchmark).validate_python(values["benchmark"])


def rules_of(settings: Benchmark) -> EpisodeRules:
    """Those of episodes that another tool plays turn by turn, within limits of its own for tokens."""
    return EpisodeRules(
        append_only=True,
        max_steps=settings.max_steps,
        temperature=1.0,
        max_new_tokens=0,
        max_context_tokens=0,
        invalid_action_penalty=settings.invalid_action_penalty,
        penalise_refused=settings.invalid_action_scope == "admissible",
    )


def task_of_row(benchmark: base.Benchmark, split: str, number: int, task_id: str) -> Task:
    """The task that a row of a dataset was written for.

    Raises:
        UserError: there is another one in its place: other data, or other settings, than when the row was written.
    """
    tasks = benchmark.tasks(split)
    if not 0 <= number < len(tasks) or tasks[number].task_id != task_id:
        raise UserError(
            f"{benchmark.name} has another task than {task_id} at {number} of {split}: the data here is not what the "
            "dataset was written from"
        )
    return tasks[number]
