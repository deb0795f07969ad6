"""Whole runs with servers of a real vLLM, beside runs whose model samples itself: `make test-vllm`, half an hour.

An agent in the shape of the tiny one, but with heads of 32 numbers, which vLLM's attention on CPUs computes, learns
ALFWorld for twenty updates. What servers sample is another draw, so a run is compared with the spread of seeds.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm

UPDATES, SEEDS = 20, 5
RUN_S = 3600
T_99 = 4.604
"""Student's t, 4 degrees of freedom, two-sided 99 %."""
SHAPE = ("model=tiny-scratch", "model.arch.num_heads=3", "model.arch.num_kv_heads=1")
LEARNING = (
    "benchmark=alfworld",
    "benchmark.invalid_action_scope=admissible",
    "algo=empg",
    "model=tiny",
    "model.init=pretrained",
    "trainer.old_logprobs=recompute",
    f"trainer.updates={UPDATES}",
    "trainer.tasks_per_update=4",
    "algo.group_size=8",
    "trainer.minibatches=1",
    "trainer.eval_before=false",
    "trainer.eval_every=0",
    "benchmark.eval_tasks=8",
    "logger.console=plain",
    "logger.wandb.mode=disabled",
)


def empg(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "empg_cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def success_of(run: Path) -> float:
    """Of all training episodes of the run."""
    rows = rows_of(run)
    assert len(rows) == UPDATES
    return statistics.mean(row["episode/success_rate"] for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not os.environ.get("EMPG_VLLM_PYTHON"):
        pytest.skip("EMPG_VLLM_PYTHON names no interpreter with vLLM: make test-vllm")
    return tmp_path_factory.mktemp("vllm-runs")


@pytest.fixture(scope="module")
def agent(folder: Path) -> Path:
    """Imitates the expert a little, as the shipped one does."""
    words = ("trainer.warm_start.steps=750", "trainer.updates=1", "trainer.lr=1e-12", "trainer.eval_before=false")
    small = ("trainer.tasks_per_update=2", "algo.group_size=2", "trainer.minibatches=1", "benchmark.eval_tasks=8")
    quiet = ("logger.console=plain", "logger.wandb.mode=disabled", f"run_dir={folder / 'agent'}")
    empg("train", "benchmark=alfworld", "algo=grpo", *SHAPE, *words, *small, *quiet)
    return folder / "agent" / "checkpoints" / "step-000001" / "model"


@pytest.fixture(scope="module")
def itself(folder: Path, agent: Path) -> list[float]:
    """Success of runs whose model samples itself."""
    for seed in range(SEEDS):
        run = folder / f"torch-{seed}"
        empg("train", *LEARNING, f"model.path={agent}", f"seed={seed}", f"run_dir={run}")
    return [success_of(folder / f"torch-{seed}") for seed in range(SEEDS)]


def served(folder: Path, agent: Path, name: str, *words: str) -> Path:
    run = folder / name
    python = os.environ["EMPG_VLLM_PYTHON"]
    servers = ("rollout.engine=vllm", f"rollout.vllm.python={python}")
    empg("train", *LEARNING, *servers, f"model.path={agent}", f"run_dir={run}", *words)
    return run


def assert_within_the_noise_of_seeds(run: Path, itself: list[float]) -> None:
    """The 99 % interval in which a sixth seed would lie."""
    spread = T_99 * statistics.stdev(itself) * math.sqrt(1 + 1 / len(itself))
    assert abs(success_of(run) - statistics.mean(itself)) <= spread, (success_of(run), itself)


def test_what_servers_sample_is_learned_from_as_well(folder: Path, agent: Path, itself: list[float]) -> None:
    run = served(folder, agent, "served")
    assert_within_the_noise_of_seeds(run, itself)
    assert max(row["rollout/logprob_gap/max"] for row in rows_of(run)) < 1e-4
    assert max(row["rollout/probe_gap"] for row in rows_of(run)) < 1e-5


def test_two_ranks_that_learn_share_a_server(folder: Path, agent: Path, itself: list[float]) -> None:
    ranks = ("dist=node", "dist.processes=2", "trainer.device=cpu")
    run = served(folder, agent, "ranks", *ranks)
    assert_within_the_noise_of_seeds(run, itself)
    assert max(row["rollout/logprob_gap/max"] for row in rows_of(run)) < 1e-4


def test_episodes_that_go_on_over_updates(folder: Path, agent: Path, itself: list[float]) -> None:
    run = served(folder, agent, "ahead", "rollout.max_staleness=1", "algo.loss.importance_cap=2.0")
    rows = rows_of(run)
    assert_within_the_noise_of_seeds(run, itself)
    assert max(row["rollout/staleness/max"] for row in rows) == 1
    print("dropped groups:", sum(row["rollout/stale_groups"] for row in rows))
    print("staleness:", statistics.mean(row["rollout/staleness/mean"] for row in rows))
