"""Worlds on disk: built once, checked for solvability, found again by what determines them.

<cache_dir>/deepsearch/<mode>-seed<seed>-<key>/
    world.json        spec, counts, digest, and the seal of all files
    questions.jsonl
    index-tantivy/    corpus and index (`index.py`); index-bm25s/ beside it when asked for
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from empg_cli.benchmarks.building import built_aside
from empg_cli.benchmarks.deepsearch.corpus import PASSAGES
from empg_cli.benchmarks.deepsearch.env import DeepSearchEnv, DeepSearchRules
from empg_cli.benchmarks.deepsearch.expert import Expert
from empg_cli.benchmarks.deepsearch.index import EmbeddedEngine, build_index
from empg_cli.benchmarks.deepsearch.manifest import MANIFEST
from empg_cli.benchmarks.deepsearch.retrieval.base import Runner
from empg_cli.benchmarks.deepsearch.retrieval.tantivy import TantivyRetriever
from empg_cli.benchmarks.deepsearch.reward import Shaping
from empg_cli.benchmarks.deepsearch.world.build import GENERATOR_VERSION, World, WorldSpec, build_world, world_digest
from empg_cli.benchmarks.deepsearch.world.questions import SPLITS, TRAIN_SHARE, Question
from empg_cli.benchmarks.deepsearch.world.real import facts_digest
from empg_cli.disk import refusal
from empg_cli.errors import DataError
from empg_cli.files import cache_root
from empg_cli.reading.guard import reading
from empg_cli.reading.seal import seal, unsealed
from empg_cli.types import Task

log = logging.getLogger(__name__)

WORLD: Final = "world.json"
SPARE: Final = 1.1
"""Questions drawn per question wanted: those that the expert cannot solve are dropped (about 1 % in the real world)."""
_CHECK_RULES: Final = DeepSearchRules(
    max_steps=8,
    last_turn="any",
    top_k=3,
    snippet_words=0,
    open_tool=False,
    max_observation_chars=4000,
    action_form="react",
    reward="em",
    success_reward=1.0,
    shaping=Shaping(),
)


@dataclass(frozen=True, slots=True)
class StoredWorld:
    directory: Path
    spec: WorldSpec
    questions: dict[str, list[Question]]
    info: dict[str, Any]
    """Counts and the digest, as in world.json."""

    def index_dir(self, engine: EmbeddedEngine) -> Path:
        """The folder of the world's index, built now if this engine has none yet."""
        directory = self.directory / f"index-{engine}"
        if not (directory / MANIFEST).is_file():
            store = TantivyRetriever(self.directory / "index-tantivy").store
            _publish(directory, lambda folder: build_index(store, folder, engine))
        return directory


def open_world(spec: WorldSpec, cache_dir: Path | None = None) -> StoredWorld:
    """The world of this spec, from the cache or built (about 10 s at scale 1)."""
    directory = (cache_dir or cache_root()) / "deepsearch" / f"{spec.mode}-seed{spec.seed}-{_key(spec)}"
    if not (directory / WORLD).is_file():
        log.info("building the %s world of seed %d in %s", spec.mode, spec.seed, directory)
        _publish(directory, lambda folder: _build(spec, folder))
    try:
        with reading(directory):
            info = unsealed(directory, WORLD, "")
            lines = (directory / "questions.jsonl").read_text(encoding="utf-8").splitlines()
            questions = _group(_question(json.loads(line)) for line in lines)
    except DataError as error:
        raise DataError(f"the world kept in {directory} is damaged ({error}); delete that folder") from error
    return StoredWorld(directory, spec, questions, info)


def _key(spec: WorldSpec) -> str:
    """Everything that determines the world, so that no stale one is ever found."""
    parts = [GENERATOR_VERSION, asdict(spec), facts_digest() if spec.mode == "real" else ""]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _publish(directory: Path, build: Callable[[Path], Any]) -> None:
    """A reader never sees half a world; of two builders the first one wins."""
    with contextlib.ExitStack() as stack:
        try:
            aside = stack.enter_context(built_aside(directory))
        except OSError as error:
            raise DataError(f"{directory.parent} cannot be written ({error}); set benchmark.cache_dir") from None
        try:
            build(aside)
            stack.close()
        except Exception as error:
            if isinstance(error, OSError) and directory.is_dir():
                return
            if (why := refusal(error)) is None:
                raise
            raise DataError(f"{directory} cannot be written ({why}); make room, or set benchmark.cache_dir") from None


def _build(spec: WorldSpec, directory: Path) -> None:
    wanted = replace(spec, num_train=round(spec.num_train * SPARE), num_test=round(spec.num_test * SPARE))
    world = build_world(wanted)
    build_index(world.passages, directory / "index-tantivy", "tantivy")
    questions, dropped = _solvable(world, spec, directory / "index-tantivy")
    with (directory / "questions.jsonl").open("w", encoding="utf-8") as file:
        for rows in questions.values():
            file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    info = {
        "spec": asdict(spec),
        "generator": GENERATOR_VERSION,
        "entities": world.num_entities,
        "facts": world.num_facts,
        "passages": len(world.passages),
        "questions": {split: len(rows) for split, rows in questions.items()},
        "dropped_unsolved": dropped,
        "digest": world_digest(world.passages, questions),
    }
    seal(directory, WORLD, info, sized_only=[f"index-tantivy/{PASSAGES}"])


def _solvable(world: World, spec: WorldSpec, index: Path) -> tuple[dict[str, list[Question]], int]:
    """The questions that the expert answers with the default engine, numbered, in the numbers asked for."""
    retriever, runner = TantivyRetriever(index), Runner(is_local=True)
    kept: dict[str, list[Question]] = {}
    dropped = 0
    for split, rows in world.questions.items():
        kept[split] = []
        counts: Counter[str] = Counter()
        for question in rows:
            limit = round(spec.num_train * TRAIN_SHARE[question.kind]) if split == "train" else spec.num_test
            if counts[question.kind] == limit:
                continue
            numbered = replace(question, id=f"{split}-{question.kind}-{counts[question.kind]}")
            if _is_solved(numbered, retriever, runner):
                counts[question.kind] += 1
                kept[split].append(numbered)
            else:
                dropped += 1
    return kept, dropped


def _is_solved(question: Question, retriever: TantivyRetriever, runner: Runner) -> bool:
    env = DeepSearchEnv(
        Task(question.id, question.kind, question.split, question), _CHECK_RULES, retriever, runner, None
    )
    env.reset()
    success = False
    for action in Expert(env).play():
        success = env.step(action).success
    return success


def _group(questions: Iterable[Question]) -> dict[str, list[Question]]:
    groups: dict[str, list[Question]] = {split: [] for split in SPLITS}
    for question in questions:
        groups[question.split].append(question)
    return groups


def _question(row: dict[str, Any]) -> Question:
    return Question(**row | {key: _tuples(row[key]) for key in ("answers", "path", "entities", "evidence")})


def _tuples(value: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)
