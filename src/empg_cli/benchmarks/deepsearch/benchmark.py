"""Deep Search as a benchmark: a generated world, or official questions over an index or a live engine."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from empg_cli.benchmarks.base import AsksServers, DataError, Env, StepResult
from empg_cli.benchmarks.deepsearch.env import DeepSearchEnv, DeepSearchRules
from empg_cli.benchmarks.deepsearch.expert import Expert
from empg_cli.benchmarks.deepsearch.judge import Judge
from empg_cli.benchmarks.deepsearch.official.questions import load_folder
from empg_cli.benchmarks.deepsearch.retrieval.base import Retriever, Runner
from empg_cli.benchmarks.deepsearch.reward import Shaping
from empg_cli.benchmarks.deepsearch.search import make_retriever
from empg_cli.benchmarks.deepsearch.store import StoredWorld, open_world
from empg_cli.benchmarks.deepsearch.world.build import WorldSpec
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.config import deepsearch as schema
from empg_cli.services.tally import Tally
from empg_cli.types import Task

_RETRIEVAL: TypeAdapter[schema.Retrieval] = TypeAdapter(schema.Retrieval)


class DeepSearchBenchmark:
    name = "deepsearch"

    def __init__(
        self,
        *,
        data_dir: str | None,
        world: Mapping[str, Any],
        retrieval: Mapping[str, Any],
        cache_dir: str | None,
        shaping: Mapping[str, float],
        judge: Mapping[str, Any] | None,
        expert_haste: float,
        **rules: Any,
    ) -> None:
        """Opens the world or the official data, and makes sure that the search engine answers.

        Args:
            rules: the other keys of `config.deepsearch.Deepsearch`; they make the `DeepSearchRules`.

        Raises:
            DataError: data is missing, or the search engine does not answer.
        """
        self._expert_haste = expert_haste
        self._rules = DeepSearchRules(**rules, shaping=Shaping(**shaping))
        engine = _RETRIEVAL.validate_python(dict(retrieval))
        self._world: StoredWorld | None = None
        if data_dir is None:
            spec = schema.World.model_validate(dict(world))
            self._world = open_world(
                WorldSpec(spec.mode, spec.seed, spec.scale, spec.train_questions, spec.test_questions),
                Path(cache_dir).expanduser() if cache_dir else None,
            )
            self._questions = _with_unions(self._world.questions)
        else:
            official = load_folder(Path(data_dir).expanduser())
            self._questions = {split: _take_turns(rows) for split, rows in official.items()}
        self.retriever: Retriever = make_retriever(engine, self._world)
        self._judge = Judge(schema.Judge.model_validate(dict(judge))) if judge else None
        self._runner = Runner(is_local=self.retriever.is_local and self._judge is None)
        self._runner.run(self.retriever.check())

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._questions)

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._questions:
            raise ValueError(f"benchmark.split must be one of {', '.join(self._questions)} here, got {split!r}")
        return [Task(question.id, question.kind, question.split, question) for question in self._questions[split]]

    def make_env(self, task: Task) -> DeepSearchEnv:
        if not isinstance(task.data, Question):
            raise TypeError("make_env() takes tasks from the tasks() of a Deep Search benchmark")
        return DeepSearchEnv(task, self._rules, self.retriever, self._runner, self._judge)

    @property
    def waits(self) -> bool:
        return not self._runner.is_local

    @property
    def tallies(self) -> list[Tally]:
        """Of the search engine and the judge, as far as they are servers."""
        searched = self.retriever.tallies if isinstance(self.retriever, AsksServers) else ()
        return [*searched, *([self._judge.tally] if self._judge else [])]

    def step_many(self, envs: Sequence[DeepSearchEnv], actions: Sequence[str]) -> list[StepResult | BaseException]:
        """One step of many episodes at once: their searches overlap, and what a group asks alike is asked once. An
        episode that cannot go on has its exception in the list."""
        pairs = zip(envs, actions, strict=True)
        return self._runner.run_all([env.step_async(action) for env, action in pairs])

    def expert(self, env: Env, rng: random.Random | None = None) -> Iterator[str]:
        if not isinstance(env, DeepSearchEnv):
            raise TypeError(f"the Deep Search expert plays DeepSearchEnv, not {type(env).__name__}")
        if self._world is None:
            raise DataError(
                "the Deep Search expert reads the generated world only: it has no demonstration of official data"
            )
        return Expert(env, haste=self._expert_haste).play(rng)

    def fingerprint(self) -> dict[str, Any]:
        questions = self._questions
        expert = {"expert_haste": self._expert_haste} if self._expert_haste else {}
        return {
            "name": self.name,
            "source": "generated" if self._world else "official",
            "world": self._world.info["spec"] if self._world else None,
            "tasks": {split: len(rows) for split, rows in questions.items()},
            "kinds": {split: dict(Counter(row.kind for row in rows)) for split, rows in questions.items()},
            "digest": self._world.info["digest"] if self._world else _digest(questions),
            "retrieval": self.retriever.fingerprint(),
            "judge": self._judge.fingerprint() if self._judge else None,
            **expert,
        }


def _with_unions(questions: dict[str, list[Question]]) -> dict[str, list[Question]]:
    """The generated splits, `ood` = all that start with it, and `test` = `id` + `ood`."""
    out_of_distribution = list(
        chain.from_iterable(rows for split, rows in questions.items() if split.startswith("ood"))
    )
    merged = {
        "train": questions["train"],
        "test": _take_turns([*questions["id"], *out_of_distribution]),
        "id": _take_turns(questions["id"]),
        "ood": _take_turns(out_of_distribution),
    }
    return merged | {split: rows for split, rows in questions.items() if split not in merged}


def _take_turns(questions: Sequence[Question]) -> list[Question]:
    """One question of each kind after the other, so that the first n tasks hold every kind."""
    by_kind: dict[str, list[Question]] = {}
    for question in questions:
        by_kind.setdefault(question.kind, []).append(question)
    return [question for turn in zip_longest(*by_kind.values()) for question in turn if question is not None]


def _digest(questions: dict[str, list[Question]]) -> str:
    sha = hashlib.sha256()
    for split, rows in sorted(questions.items()):
        for row in rows:
            sha.update(json.dumps([split, row.id, row.text, row.answers], ensure_ascii=False).encode())
    return sha.hexdigest()[:16]
