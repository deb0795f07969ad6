"""The WebShop agent that ships: it is what its record says, it trains, and reinforcement learning improves it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from empg_cli import config
from empg_cli.agents.webshop_compact import vocabulary
from empg_cli.benchmarks import make_benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.loop import train
from empg_cli.model.loading import load_policy, model_fingerprint, packaged_agent
from empg_cli.model.tiny import word_tokenizer

QUIET = [
    *("benchmark=webshop", "benchmark.data_dir=null", "trainer.threads=1", "trainer.device=cpu"),
    *("logger.console=quiet", "logger.wandb.mode=disabled"),
]


def load(*overrides: str) -> TrainConfig:
    return config.load([*QUIET, *overrides])


def test_weights_and_words_are_those_of_the_record() -> None:
    policy = load_policy(load().model, "webshop", seed=0, device=torch.device("cpu"))
    folder = packaged_agent("webshop")
    record = json.loads((folder / "record.json").read_text())
    assert model_fingerprint(policy) == record["model"]
    assert record["curve"][-1]["success_sampled"] >= record["stop_at"] > record["curve"][-2]["success_sampled"]
    assert (folder / "model.safetensors").stat().st_size < 2_000_000
    assert policy.tokenizer.get_vocab() == word_tokenizer(vocabulary()).get_vocab()


def test_it_has_not_seen_the_shop_that_users_play() -> None:
    record = json.loads((packaged_agent("webshop") / "record.json").read_text())
    digests = {
        record["demonstrations"]["digest"],
        make_benchmark(**load().benchmark.model_dump()).fingerprint()["digest"],
    }
    assert len(digests) == 2
    assert record["held_out"]["shop_seed"] == 2


@pytest.mark.parametrize("model", ["tiny", "tiny-scratch"])
def test_two_updates(model: str, tmp_path: Path) -> None:
    """`empg train benchmark=webshop algo=empg`, small. The scratch model begins with a warm start."""
    cfg = load(
        *("algo=empg", f"model={model}", f"trainer.warm_start.steps={2 if model == 'tiny-scratch' else 0}"),
        *("benchmark.num_products=120", "benchmark.eval_tasks=6", "benchmark.max_steps=6"),
        *("algo.group_size=2", "trainer.updates=2", "trainer.tasks_per_update=3", "trainer.minibatches=1"),
        *("trainer.warm_start.batch_size=2", "trainer.checkpoint_every=1"),
    )
    summary = train(cfg, tmp_path / "run")
    assert summary.updates == 2 and summary.success_rate is not None
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("empg/weight/mean" in row for row in rows)
    evaluation = json.loads((tmp_path / "run" / "evaluations" / "update-000002.json").read_text())
    assert [task["task_id"] for task in evaluation["tasks"]] == [f"synthetic/{n}" for n in range(6)]


def test_two_updates_in_window_context(tmp_path: Path) -> None:
    cfg = load(
        *("rollout=window", "rollout.max_new_tokens=6", "rollout.max_context_tokens=512", "benchmark.num_products=120"),
        *("benchmark.eval_tasks=4", "algo.group_size=2", "trainer.updates=2", "trainer.tasks_per_update=2"),
        *("benchmark.max_steps=5", "trainer.minibatches=1"),
    )
    assert train(cfg, tmp_path / "run").updates == 2


@pytest.mark.long
def test_reinforcement_learning_improves_it(tmp_path: Path) -> None:
    """A short form of the recipe, whose first ten updates gave about twelve points."""
    cfg = load("experiment=webshop", "trainer.updates=10", "trainer.lr_schedule=constant", "trainer.eval_every=0")
    summary = train(cfg, tmp_path / "run")
    before = json.loads((tmp_path / "run" / "evaluations" / "update-000000.json").read_text())["total"]
    assert before["n"] == 500
    assert summary.success_rate is not None
    assert summary.success_rate - before["success_rate"] >= 0.05
