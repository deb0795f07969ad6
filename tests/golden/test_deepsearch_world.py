"""The generated worlds: pinned digests, split hygiene, an expert that solves everything, no score without searching."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.answers import exact_match, normalise
from empg_cli.benchmarks.deepsearch.benchmark import DeepSearchBenchmark
from empg_cli.benchmarks.deepsearch.retrieval.base import Runner
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.config.deepsearch import PARTS
from empg_cli.config.job import load_job
from empg_cli.config.schema import TrainConfig

DIGESTS = {"fictional": "41eb1bc8e8ae6b7d", "real": "1787079431757fcb"}
"""Of conf/benchmark/deepsearch.yaml's world, seed 0, questions checked with the default engine. A change here changes
the task: raise GENERATOR_VERSION with it."""
CHAIN_KINDS = ("2hop", "composition", "depth3", "depth4")


def open_benchmark(mode: str, cache: Path, *overrides: str) -> DeepSearchBenchmark:
    words = ["benchmark=deepsearch", f"benchmark.world.mode={mode}", f"benchmark.cache_dir={cache}", *overrides]
    cfg = load_job("train", [*words, "benchmark.data_dir=null"], TrainConfig)
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    assert isinstance(benchmark, DeepSearchBenchmark)
    return benchmark


@pytest.fixture(scope="module", params=["fictional", pytest.param("real", marks=pytest.mark.slow)])
def benchmark(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DeepSearchBenchmark:
    return open_benchmark(request.param, tmp_path_factory.mktemp("cache"))


def questions(benchmark: DeepSearchBenchmark, split: str) -> list[Question]:
    return [task.data for task in benchmark.tasks(split)]


def mode_of(benchmark: DeepSearchBenchmark) -> str:
    return str(benchmark.fingerprint()["world"]["mode"])


def test_digest_is_pinned(benchmark: DeepSearchBenchmark) -> None:
    assert benchmark.fingerprint()["digest"] == DIGESTS[mode_of(benchmark)]


def test_sizes(benchmark: DeepSearchBenchmark) -> None:
    kinds = benchmark.fingerprint()["kinds"]
    assert kinds["train"] == {"1hop": 1000, "2hop": 2200, "compare": 800}
    assert kinds["test"] == dict.fromkeys(
        ("1hop", "2hop", "compare", "composition", "depth3", "depth4", "intersection"), 250
    )
    assert kinds["id"] == {"1hop": 250, "2hop": 250, "compare": 250}


def test_no_question_is_shared_between_train_and_any_test_split(benchmark: DeepSearchBenchmark) -> None:
    train = {normalise(question.text) for question in questions(benchmark, "train")}
    for split in benchmark.splits:
        if split != "train":
            assert not train & {normalise(question.text) for question in questions(benchmark, split)}


def test_start_entities_of_test_chains_and_comparisons_are_held_out(benchmark: DeepSearchBenchmark) -> None:
    def starts(question: Question) -> tuple[str, ...]:
        return question.entities if question.kind == "compare" else question.entities[:1]

    train = {name for question in questions(benchmark, "train") for name in starts(question)}
    for split in ("id", "ood_composition", "ood_depth3", "ood_depth4"):
        assert not train & {name for question in questions(benchmark, split) for name in starts(question)}


def test_compositions_are_seen_in_id_and_unseen_in_ood(benchmark: DeepSearchBenchmark) -> None:
    def bigrams(split: str, kind: str) -> set[object]:
        return {pair for q in questions(benchmark, split) if q.kind == kind for pair in pairwise(q.path)}

    train = bigrams("train", "2hop")
    assert bigrams("id", "2hop") <= train
    assert not bigrams("ood_composition", "composition") & train


def test_first_tasks_of_the_test_split_hold_every_kind(benchmark: DeepSearchBenchmark) -> None:
    assert Counter(task.kind for task in benchmark.tasks("test")[:70]) == dict.fromkeys(
        ("1hop", "2hop", "compare", "composition", "depth3", "depth4", "intersection"), 10
    )


def test_expert_solves_50_questions_of_every_split(benchmark: DeepSearchBenchmark) -> None:
    for split in benchmark.splits:
        for task in benchmark.tasks(split)[:50]:
            env = benchmark.make_env(task)
            env.reset()
            for action in benchmark.expert(env):
                result = env.step(action)
            assert result.done, task
            assert result.success, (task, env.history)
            assert result.info["em"] == 1.0


def test_expert_takes_a_search_per_hop(benchmark: DeepSearchBenchmark) -> None:
    turns = defaultdict(list)
    for task in benchmark.tasks("test")[:350]:
        env = benchmark.make_env(task)
        env.reset()
        for action in benchmark.expert(env):
            env.step(action)
        turns[task.kind].append(len(env.history))
    mean = {kind: sum(values) / len(values) for kind, values in turns.items()}
    # hops + 1; a second wording is needed now and then in the real world
    for kind, hops in {"1hop": 1, "2hop": 2, "composition": 2, "depth3": 3, "depth4": 4}.items():
        assert hops + 1 <= mean[kind] <= hops + 1.15, mean


def test_answering_without_searching_does_not_score(benchmark: DeepSearchBenchmark) -> None:
    """Policies that never search: the question's own name, and the commonest training answer."""
    commonest = Counter(q.answers[0] for q in questions(benchmark, "train")).most_common(1)[0][0]
    for kind in (*CHAIN_KINDS, "intersection"):
        asked = [question for question in questions(benchmark, "test") if question.kind == kind]
        for policy in (lambda question: question.entities[0], lambda question: commonest):
            score = sum(exact_match(policy(question), question.answers) for question in asked) / len(asked)
            assert score <= 0.01, (kind, score)


def test_guessing_the_commonest_answer_of_the_last_relation_does_not_score(benchmark: DeepSearchBenchmark) -> None:
    """The strongest policy without search that we know, learned from the training questions."""
    seen: defaultdict[object, Counter[str]] = defaultdict(Counter)
    for question in questions(benchmark, "train"):
        seen[question.path[-1]][question.answers[0]] += 1
    hits: defaultdict[str, list[float]] = defaultdict(list)
    for question in questions(benchmark, "test"):
        if question.kind in (*CHAIN_KINDS, "intersection"):
            guess = (seen[question.path[-1]].most_common(1) or [("", 0)])[0][0]
            hits[question.kind].append(exact_match(guess, question.answers))
    values = [hit for column in hits.values() for hit in column]
    assert len(values) == 1250
    assert sum(values) / len(values) <= 0.01
    assert max(sum(column) / len(column) for column in hits.values()) <= 0.02


def test_no_answer_of_the_intersections_stands_out(benchmark: DeepSearchBenchmark) -> None:
    """Training has none of these questions; the bound is for a policy that knew the answers of the test."""
    answers = Counter(question.answers[0] for question in questions(benchmark, "ood_intersection"))
    assert answers.most_common(1)[0][1] / 250 <= 0.09


def test_one_search_with_the_question_does_not_find_all_evidence_of_deep_questions(
    benchmark: DeepSearchBenchmark,
) -> None:
    runner = Runner(is_local=True)
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for question in questions(benchmark, "test"):
        hits = runner.run(benchmark.retriever.search([question.text], 3))[0]
        found[question.kind].append(set(question.evidence) <= {hit.id for hit in hits})
    share = {kind: sum(values) / len(values) for kind, values in found.items()}
    assert share["1hop"] >= 0.95
    assert share["2hop"] <= 0.30
    assert share["depth3"] <= 0.01
    assert share["depth4"] == 0.0


def test_answers_do_not_stand_in_the_question(benchmark: DeepSearchBenchmark) -> None:
    for question in questions(benchmark, "test"):
        if question.kind in (*CHAIN_KINDS, "1hop"):
            assert normalise(question.answers[0]) not in [normalise(name) for name in question.entities[:-1]]
        assert all(normalise(answer) for answer in question.answers)


def test_a_world_is_found_in_the_cache_and_is_the_same(tmp_path: Path) -> None:
    small = ("benchmark.world.scale=0.3", "benchmark.world.train_questions=200", "benchmark.world.test_questions=20")
    first = open_benchmark("fictional", tmp_path, *small)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in files]
    second = open_benchmark("fictional", tmp_path, *small)
    assert second.fingerprint() == first.fingerprint()
    assert [path.stat().st_mtime_ns for path in files] == times
    other = open_benchmark("fictional", tmp_path, *small, "benchmark.world.seed=1")
    assert other.fingerprint()["digest"] != first.fingerprint()["digest"]


def test_a_damaged_cache_says_what_to_delete(tmp_path: Path) -> None:
    small = ("benchmark.world.scale=0.2", "benchmark.world.train_questions=50", "benchmark.world.test_questions=5")
    open_benchmark("fictional", tmp_path, *small)
    (questions_file,) = tmp_path.rglob("questions.jsonl")
    lines = questions_file.read_text().splitlines(keepends=True)
    for damage, message in (
        (lines[:-1], "bytes instead of"),
        ([*lines[:-1], lines[-1].replace("1", "2")], "not what was"),
    ):
        questions_file.write_text("".join(damage))
        with pytest.raises(DataError, match=message) as caught:
            open_benchmark("fictional", tmp_path, *small)
        assert str(questions_file.parent) in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fictional", "real"])
def test_digest_does_not_depend_on_the_hash_seed(mode: str) -> None:
    code = (
        "from empg_cli.benchmarks.deepsearch.world.build import *;"
        f"print(build_world(WorldSpec({mode!r}, 0, 0.3, 100, 10)).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "4711")
    }
    assert len(digests) == 1


def test_splits_that_hold_each_other_are_known(benchmark: DeepSearchBenchmark) -> None:
    """`PARTS` are those whose tasks they have, and no other two splits share a task."""
    ids = {split: {task.task_id for task in benchmark.tasks(split)} for split in benchmark.splits}
    for one, other in permutations(ids, 2):
        assert (ids[other] <= ids[one]) is (other in PARTS.get(one, ())), (one, other)
        if other not in PARTS.get(one, ()) and one not in PARTS.get(other, ()):
            assert not ids[one] & ids[other], (one, other)
