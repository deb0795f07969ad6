"""Masked episodes in the machinery around the formulas: dynamic sampling, empty updates, a run, an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from empg_cli import experiment, loop
from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.algorithms.assemble import compute_credit
from empg_cli.benchmarks.base import StepResult, UnscoredError
from empg_cli.config import load
from empg_cli.evaluation.evaluate import NothingJudged, summarise
from empg_cli.learner.update import update_policy
from empg_cli.model.batch import make_batch
from empg_cli.model.tiny import word_tokenizer
from empg_cli.rollout.masking import EnvironmentsDown, trainable
from empg_cli.rollout.source import Source
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Status, Task, Trajectory
from tests.support.one_step import BREAK, FAIL, SOLVE, OneStepEnv
from tests.support.scripted import ScriptedEngine
from tests.support.tiny import tiny_config, tiny_policy


def sample(words: list[str], *actions: str) -> tuple[list[Trajectory], dict[str, float]]:
    """One rollout for an update of two tasks; the same actions in every resampled batch."""
    cfg = tiny_config(*words, "trainer.tasks_per_update=2", f"algo.group_size={len(actions) // 2}")
    benchmark: Any = SimpleNamespace(
        make_env=OneStepEnv, tasks=lambda split: [Task(f"t{number}", "k", split) for number in range(4)]
    )
    codec = CompactCodec(word_tokenizer(vocabulary()))
    engine = ScriptedEngine(codec, [[AlfworldCompact().phrase(action)] for action in actions])

    def make_agent() -> Agent:
        return Agent(AlfworldCompact(), codec, context="transcript", history=0)

    return Source(cfg, engine, benchmark, make_agent).next(TrainState())


def test_dynamic_sampling_compares_the_judged_members_alone() -> None:
    words = ["algo=dapo", "algo.sampling.max_resamples=1"]
    # Group 0 is uniform but for the broken one, group 1 has a success and a failure.
    trajectories, metrics = sample(words, SOLVE, SOLVE, BREAK, SOLVE, BREAK, FAIL)
    assert metrics["dapo/filtered_groups"] == 2.0  # group 0 of both batches
    assert metrics["rollout/masked_trajectories"] == 4.0  # two of each batch
    kept = trainable(trajectories)
    assert [(t.group, t.index, t.success) for t in kept] == [(1, 0, True), (1, 2, False), (3, 0, True), (3, 2, False)]


def test_without_dynamic_sampling_all_are_returned_and_counted() -> None:
    trajectories, metrics = sample(["algo=grpo"], SOLVE, FAIL, BREAK, SOLVE, BREAK, BREAK)
    assert len(trajectories) == 6
    assert metrics["rollout/masked_trajectories"] == 4.0  # the last one of group 1 has nobody left
    assert not any(name.startswith("dapo/") for name in metrics)
    assert [(t.group, t.index) for t in trainable(trajectories)] == [(0, 0), (0, 1)]


@pytest.mark.parametrize("preset", ["grpo", "dapo"])
def test_a_rollout_in_which_everything_fails_is_a_stop(preset: str) -> None:
    with pytest.raises(EnvironmentsDown, match=r"4 of 4 episodes .* such as: UnscoredError: no verdict"):
        sample([f"algo={preset}"], BREAK, BREAK, BREAK, BREAK)


PRESETS = sorted(path.stem for path in (Path(__file__).parents[3] / "conf" / "algo").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_no_episode_left_is_an_update_that_changes_nothing(preset: str) -> None:
    cfg = tiny_config(f"algo={preset}") if preset != "gspo" else load([f"algo={preset}"])
    batch = make_batch([], append_only=True)
    batch.credit_S, metrics = compute_credit(cfg.algo, batch)
    assert batch.credit_S.shape == (0,)
    assert all(value == value for value in metrics.values())


def test_an_empty_update_leaves_the_weights() -> None:
    cfg = tiny_config()
    policy = tiny_policy(cfg)
    before = [parameter.clone() for parameter in policy.model.parameters()]
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=0.1)
    batch = make_batch([], append_only=True)
    batch.credit_S, _ = compute_credit(cfg.algo, batch)
    assert update_policy(policy, optimizer, batch, cfg, lr=0.1, update=0) == {"actor/lr": 0.1}
    assert all(a.equal(b) for a, b in zip(before, policy.model.parameters(), strict=True))


class Fragile:
    """A benchmark of which every fourth environment breaks at its second step."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._made = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def make_env(self, task: Task) -> Any:
        env = self._inner.make_env(task)
        self._made += 1
        if self._made % 4 == 0:
            plain, steps = env.step, iter(range(100))

            def step(action: str) -> StepResult:
                if next(steps) == 1:
                    raise UnscoredError("the judge is down")
                result: StepResult = plain(action)
                return result

            env = SimpleNamespace(task=task, reset=env.reset, step=step)
        return env


def test_a_run_counts_what_it_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make: Callable[..., Any] = experiment.make_benchmark
    monkeypatch.setattr(experiment, "make_benchmark", lambda **keys: Fragile(make(**keys)))
    cfg = tiny_config(
        "algo=empg",
        "algo.group_size=4",
        "trainer.updates=1",
        "trainer.tasks_per_update=2",
        "trainer.minibatches=1",
        "benchmark.eval_tasks=8",
        "logger.wandb.mode=disabled",
    )
    loop.train(cfg, tmp_path / "run")
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["rollout/masked_trajectories"] == 2
    assert row["episode/env_error_frac"] == 0.25
    assert (row["eval/n"], row["eval/not_judged"]) == (6, 2)
    assert row["env/episodes"] == 8
    assert row["batch/episodes"] == 6  # what the loop trained on
    (evaluation,) = (tmp_path / "run" / "evaluations").glob("update-000001.json")
    content = json.loads(evaluation.read_text())
    assert (content["total"]["n"], content["total"]["not_judged"]) == (6, 2)
    assert [task["success"] for task in content["tasks"] if task["status"] == "env_error"] == [None, None]
    assert content["tasks"][3]["error"] == "UnscoredError: the judge is down"


def played(kind: str, status: Status) -> Trajectory:
    solved = status is Status.SUCCESS
    error = "JudgeError: down" if status is Status.ENV_ERROR else None
    return Trajectory(Task("t", kind, "test"), 0, 0, [], status, float(solved), solved, error, {"em": float(solved)})


def test_an_evaluation_reports_what_nobody_judged_apart() -> None:
    found = summarise(
        [
            played("a", Status.SUCCESS),
            played("a", Status.ENV_ERROR),
            played("a", Status.FAILED),
            played("b", Status.ENV_ERROR),
        ],
        benchmark="alfworld",
        split="test",
        temperature=0.0,
    )
    assert (found.total.n, found.total.not_judged, found.total.success_rate) == (2, 2, 0.5)
    assert [(row.kind, row.n, row.not_judged) for row in found.kinds] == [("a", 2, 1)]  # of b nothing is known
    metrics = found.metrics("deepsearch")
    assert (metrics["eval/n"], metrics["eval/not_judged"], metrics["eval/deepsearch/em"]) == (2.0, 2.0, 0.5)
    with pytest.raises(NothingJudged, match="1 of 1 episodes ended in an environment error, such as: JudgeError: down"):
        summarise([played("a", Status.ENV_ERROR)], benchmark="alfworld", split="test", temperature=0.0)
