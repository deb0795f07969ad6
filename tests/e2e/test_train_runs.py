"""Whole training runs, in this process: reproducible, resumable, and the same story for every context and algorithm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.loop import train
from empg_cli.runs.checkpoint import all_checkpoints
from empg_cli.runs.manifest import CheckpointError
from empg_cli.runs.rows import without_wall_clock
from empg_cli.runs.which_checkpoint import find_checkpoint
from tests.support.chat import save_chat_model
from tests.support.tiny import tiny_config

SMALL = (
    "trainer.updates=4",
    "trainer.tasks_per_update=2",
    "algo.group_size=3",
    "trainer.minibatches=2",
    "trainer.eval_every=2",
    "trainer.checkpoint_every=2",
    "trainer.warm_start.steps=0",
    "benchmark.eval_tasks=4",
    "benchmark.train_games=5",
    "benchmark.invalid_action_scope=admissible",
    "logger.wandb.mode=disabled",
)


def config(*overrides: str) -> TrainConfig:
    return tiny_config(*SMALL, *overrides)


def rows(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [without_wall_clock(json.loads(line)) for line in lines]


def test_same_seed_same_numbers_other_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(f"seed={seed}"), tmp_path / name)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert rows(tmp_path / "a") != rows(tmp_path / "c")
    assert [row["update"] for row in rows(tmp_path / "a")] == [0, 1, 2, 3, 4]


def test_a_resumed_run_is_the_straight_run(tmp_path: Path) -> None:
    train(config(), tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-000004")  # as if killed after update 3
    (tmp_path / "killed" / "evaluations" / "update-000004.json").unlink()
    summary = train(config("resume=auto"), tmp_path / "killed")
    assert summary.updates == 4
    assert rows(tmp_path / "killed") == rows(tmp_path / "straight")
    weights = [
        (tmp_path / name / "checkpoints" / "step-000004" / "model" / "model.safetensors").read_bytes()
        for name in ("straight", "killed")
    ]
    assert weights[0] == weights[1]


def test_a_damaged_checkpoint_is_skipped_or_named(tmp_path: Path) -> None:
    train(config(), tmp_path)
    newest = all_checkpoints(tmp_path)[-1]
    weights = newest / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # one flipped bit: same size, still loads
    weights.write_bytes(content)
    assert find_checkpoint(tmp_path).name == "step-000002"
    with pytest.raises(CheckpointError, match=r"step-000004 is damaged: model/model.safetensors does not match"):
        find_checkpoint(newest)


def test_a_run_folder_is_not_overwritten(tmp_path: Path) -> None:
    train(config("trainer.updates=1"), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        train(config("trainer.updates=1"), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_neutral_empg_is_the_base_algorithm(tmp_path: Path) -> None:
    train(config("algo=grpo"), tmp_path / "grpo")
    neutral = ("algo=empg", "algo.credit.k=0", "algo.credit.zeta=0", "algo.credit.center=false")
    train(config(*neutral), tmp_path / "empg")
    train(config("algo=empg"), tmp_path / "modulated")
    shared = [name for name in rows(tmp_path / "grpo")[1] if not name.startswith("empg/")]
    for name in ("empg", "modulated"):
        same = [[row.get(key) for key in shared] for row in rows(tmp_path / name)] == [
            [row.get(key) for key in shared] for row in rows(tmp_path / "grpo")
        ]
        assert same == (name == "empg")


def test_recomputed_old_logprobs_change_nothing_but_rounding(tmp_path: Path) -> None:
    one = ("trainer.updates=1", "trainer.minibatches=1")
    train(config(*one), tmp_path / "rollout")
    train(config(*one, "trainer.old_logprobs=recompute"), tmp_path / "recompute")
    first, second = rows(tmp_path / "rollout")[1], rows(tmp_path / "recompute")[1]
    assert second["rollout/logprob_gap/max"] < 2e-5
    for name in ("actor/pg_loss", "actor/grad_norm", "empg/weight/max", "empg/step_entropy/mean"):
        # A random policy is almost equally unsure everywhere, so the min-max in EMPG magnifies rounding.
        assert second[name] == pytest.approx(first[name], rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("algo", ["dapo", "dapo_empg"])
def test_dynamic_sampling_fills_the_update_or_says_so(algo: str, tmp_path: Path) -> None:
    # A random policy never succeeds, so no group has a signal: the cap is reached and the last batch is used.
    cfg = config(f"algo={algo}", "algo.sampling.max_resamples=2", "trainer.updates=1")
    train(cfg, tmp_path)
    row = rows(tmp_path)[1]
    assert row["dapo/resampled_batches"] == 2
    assert row["dapo/filtered_groups"] == 6  # 3 batches of 2 groups
    assert row["env/episodes"] == 18  # all of them were played
    assert (row["batch/episodes"], row["batch/groups"]) == (6, 2)  # 2 groups of 3 train


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_a_chat_model_trains(context: str, tmp_path: Path) -> None:
    model = save_chat_model(tmp_path / "model")
    cfg = tiny_config(
        *SMALL,
        f"rollout={context}",
        "trainer.updates=1",
        "trainer.old_logprobs=recompute",
        "rollout.max_new_tokens=8",
        "rollout.max_context_tokens=8000",
        "benchmark.max_steps=2",
        model=("model=qwen2.5-0.5b", f"model.path={model}", "model.dtype=float32"),
    )
    train(cfg, tmp_path / "run")
    row = rows(tmp_path / "run")[1]
    assert row["rollout/logprob_gap/max"] < 1e-4
    assert row["episode/length/mean"] == 2
    assert row["actor/grad_norm"] > 0
