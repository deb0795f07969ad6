"""The Deep Search agent that ships: it is what its record says, it trains, and reinforcement learning improves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli import config
from empg_cli.agents.deepsearch_compact import vocabulary
from empg_cli.config.schema import TrainConfig
from empg_cli.loop import train
from empg_cli.model.loading import load_policy, model_fingerprint, packaged_agent
from empg_cli.model.tiny import word_tokenizer

QUIET = [
    *("benchmark=deepsearch", "benchmark.data_dir=null", "trainer.threads=1", "trainer.device=cpu"),
    *("logger.console=plain", "logger.wandb.mode=disabled"),
]
SMALL = ("benchmark.world.scale=0.1", "benchmark.world.train_questions=100", "benchmark.world.test_questions=5")


def load(*overrides: str) -> TrainConfig:
    return config.load([*QUIET, *overrides])


def evaluation(run_dir: Path, update: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "evaluations" / f"update-{update:06d}.json").read_text())
    return content


def test_weights_and_words_are_those_of_the_record() -> None:
    policy = load_policy(load().model, "deepsearch", seed=0, device=torch.device("cpu"))
    folder = packaged_agent("deepsearch")
    record = json.loads((folder / "record.json").read_text())
    assert model_fingerprint(policy) == record["model"]
    assert record["curve"][-1]["success_sampled"] >= record["stop_at"] > record["curve"][-2]["success_sampled"]
    assert (folder / "model.safetensors").stat().st_size < 2_000_000
    assert policy.tokenizer.get_vocab() == word_tokenizer(vocabulary()).get_vocab()


def test_it_was_shown_training_questions_of_the_world_that_users_play_and_judged_in_another() -> None:
    """So the compositions that are OOD in that world were never demonstrated; another world holds out others."""
    record = json.loads((packaged_agent("deepsearch") / "record.json").read_text())
    world = record["demonstrations"]["world"]
    ours = load().benchmark.model_dump()["world"]
    assert {key: world[key] for key in ("mode", "seed", "scale")} == {
        key: ours[key] for key in ("mode", "seed", "scale")
    }
    assert record["demonstrations"]["expert_haste"] == 0.5
    assert record["held_out"]["world.seed"] != world["seed"]


@pytest.fixture(scope="module")
def small_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"benchmark.cache_dir={tmp_path_factory.mktemp('world')}"


@pytest.mark.parametrize("model", ["tiny", "tiny-scratch"])
def test_two_updates_print_id_and_ood_apart(
    model: str, small_cache: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`empg train benchmark=deepsearch algo=empg`, small. The scratch model begins with a warm start."""
    cfg = load(
        *("algo=empg", f"model={model}", f"trainer.warm_start.steps={2 if model == 'tiny-scratch' else 0}"),
        *(*SMALL, small_cache, "benchmark.max_steps=4"),
        *("algo.group_size=2", "trainer.updates=2", "trainer.tasks_per_update=3", "trainer.minibatches=1"),
        *("trainer.warm_start.batch_size=2", "trainer.checkpoint_every=1"),
    )
    summary = train(cfg, tmp_path / "run")
    assert summary.updates == 2 and summary.success_rate is not None
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("empg/weight/mean" in row for row in rows)
    found = {row["name"]: row for row in evaluation(tmp_path / "run", 2)["averages"]}
    assert {name: row["sources"] for name, row in found.items()} == {"ID": 3, "OOD": 4, "overall": 7}
    printed = capsys.readouterr()
    for name in ("ID", "OOD"):
        shown = f"{found[name]['success_rate']:.1%} [{found[name]['lo']:.1%}, {found[name]['hi']:.1%}]"
        assert f"evaluation at update 2: {name} success_rate={shown}" in printed.err
        assert any(line.startswith(f"last {name}") and shown in line for line in printed.out.splitlines())


@pytest.mark.long
def test_reinforcement_learning_improves_it(tmp_path: Path) -> None:
    """The recipe on the ID questions alone."""
    cfg = load("experiment=deepsearch", "benchmark.split=id", f"benchmark.cache_dir={tmp_path / 'cache'}")
    summary = train(cfg, tmp_path / "run")
    before = evaluation(tmp_path / "run", 0)["total"]
    assert before["n"] == 750
    assert summary.success_rate is not None
    assert summary.success_rate - before["success_rate"] >= 0.08
