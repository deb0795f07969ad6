"""What the loop hands from one part to the next, seen in the numbers of a run of two updates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from empg_cli import experiment, loop
from empg_cli.errors import UserError
from empg_cli.rollout import engines
from empg_cli.rollout.engine import Completion
from empg_cli.rollout.torch_engine.engine import TorchEngine
from tests.support.tiny import tiny_config


class BlindEngine(TorchEngine):
    """Reports no entropies, as servers do not."""

    async def generate(self, *arguments: Any, **options: Any) -> Completion[int]:
        completion = await super().generate(*arguments, **options)
        return replace(completion, entropies=None)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A recomputing run of two updates with a KL term and a blind engine."""
    cfg = tiny_config(
        "algo=empg",
        "algo.group_size=2",
        "algo.loss.kl_coef=0.01",
        "trainer.old_logprobs=recompute",
        "trainer.updates=2",
        "trainer.tasks_per_update=2",
        "trainer.minibatches=1",
        "trainer.lr_warmup=0",
        "trainer.lr=1e-2",
        "trainer.eval_before=false",
        "trainer.eval_every=0",
        "benchmark.eval_tasks=1",
        "logger.wandb.mode=disabled",
    )
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "TorchEngine", BlindEngine)
        loop.train(cfg, folder)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_entropies_that_nobody_knows_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = tiny_config(
        "algo=empg",
        "trainer.old_logprobs=rollout",
        "trainer.updates=1",
        "trainer.tasks_per_update=1",
        "trainer.eval_before=false",
        "logger.wandb.mode=disabled",
    )
    monkeypatch.setattr(engines, "TorchEngine", BlindEngine)
    with pytest.raises(UserError, match=r"set trainer\.old_logprobs=recompute"):
        loop.train(cfg, tmp_path / "run")


def test_recomputed_entropies_replace_the_samplers(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    for row in rows:
        assert row["empg/step_entropy/mean"] > 1.0, "a random policy is unsure among hundreds of words"
        assert row["empg/weight/max"] > 1.01, "with equal entropies every weight is 1"


def test_the_reference_stays_where_the_policy_began(rows: list[dict[str, Any]]) -> None:
    first, second = (row["actor/kl_loss"] for row in rows)
    assert abs(first) < 1e-6  # the first update begins at the reference
    assert second > 1e-4  # the second does not


def versions(run: Path, phase: str) -> dict[int, set[int]]:
    """Update that a file of trajectories belongs to -> the policy versions of its steps."""
    return {
        int(path.stem.split("-")[1]): {
            step["policy_version"] for line in path.read_text().splitlines() for step in json.loads(line)["steps"]
        }
        for path in sorted((run / "trajectories").glob(f"*-{phase}.jsonl"))
    }


def test_every_step_says_which_policy_sampled_it_also_after_a_resume(tmp_path: Path) -> None:
    words = (
        *("algo.group_size=2", "trainer.tasks_per_update=2", "trainer.minibatches=1", "benchmark.eval_tasks=1"),
        *("trainer.updates=3", "trainer.eval_every=1", "trainer.checkpoint_every=2", "logger.wandb.mode=disabled"),
    )
    loop.train(tiny_config(*words), tmp_path / "run")
    assert versions(tmp_path / "run", "train") == {1: {0}, 2: {1}, 3: {2}}  # update 3 trains on what version 2 played
    assert versions(tmp_path / "run", "eval") == {0: {0}, 1: {1}, 2: {2}, 3: {3}}

    checkpoint = tmp_path / "run" / "checkpoints" / "step-000002"
    loop.train(tiny_config(*words, f"resume={checkpoint}"), tmp_path / "again")
    assert versions(tmp_path / "again", "train") == {3: {2}}
    assert versions(tmp_path / "again", "eval") == {3: {3}}


def test_an_evaluation_that_solves_more_is_worth_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is due before the end; evaluations find 0, 1/4, 1/4, 2/4, 1/4."""
    from empg_cli.evaluation import evaluate

    solved = iter([0, 1, 1, 2, 1])
    real = evaluate.evaluate

    def evaluated(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        return replace(found, total=replace(found.total, success_rate=next(solved) / 4))

    monkeypatch.setattr(experiment, "evaluate", evaluated)
    words = (
        *("algo.group_size=2", "trainer.tasks_per_update=2", "trainer.minibatches=1", "benchmark.eval_tasks=1"),
        *("trainer.updates=4", "trainer.eval_every=1", "trainer.checkpoint_every=0", "logger.wandb.mode=disabled"),
        *("trainer.keep_checkpoints=1", "trainer.health.preflight=off"),
    )
    loop.train(tiny_config(*words), tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-000003", "step-000004"]
