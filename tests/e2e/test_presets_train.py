"""Every shipped algorithm trains two updates on ALFWorld, and every option that is in no preset one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from empg_cli.errors import UserError
from empg_cli.loop import train
from empg_cli.observe.catalogue import undefined
from tests.support.tiny import tiny_config

PRESETS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "algo").glob("*.yaml"))

SMALL = (
    "trainer.tasks_per_update=2",
    "algo.group_size=2",
    "trainer.minibatches=2",
    "trainer.warm_start.steps=0",
    "trainer.eval_before=false",
    "benchmark.max_steps=3",
    "benchmark.eval_tasks=1",
    "benchmark.train_games=3",
    "benchmark.invalid_action_scope=admissible",
    "benchmark.invalid_action_penalty=0.1",
    "logger.wandb.mode=disabled",
)


def run(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    """The metrics of each update."""
    train(tiny_config(*SMALL, *overrides), folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert undefined({key for row in rows for key in row} - {"update"}) == []
    return [row for row in rows if "actor/pg_loss" in row]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains(preset: str, tmp_path: Path) -> None:
    resamples = ["algo.sampling.max_resamples=1"] if preset.startswith(("dapo", "sampo")) else []
    rows = run(tmp_path, f"algo={preset}", "trainer.updates=2", *resamples)
    assert len(rows) == 2
    for row in rows:
        assert math.isfinite(row["actor/pg_loss"])
        # under the KL-free presets a batch without any signal has no gradient at all
        assert row["actor/grad_norm"] > 0 or row["group/zero_std_frac"] == 1
        assert ("actor/kl_loss" in row) == (preset not in ("dapo", "dr_grpo", "gspo", "cispo"))
        assert ("empg/weight/mean" in row) == (preset.endswith("empg") or preset == "aem")


@pytest.mark.parametrize(
    ("name", "overrides", "logged"),
    [
        ("step statistics", ["algo=grpo", "algo.advantage.statistics=step", "algo.advantage.unbiased_std=true"], ""),
        ("dual clip and KL clamp", ["algo=grpo", "algo.loss.dual_clip=3.0", "algo.loss.kl_clamp=10.0"], ""),
        ("quantiles", ["algo=empg", "algo.credit.normalise=quantile", "algo.credit.tail=0.05"], "empg/weight/max"),
        ("anchors", ["algo=empg", "algo.credit.normalise=anchor"], "empg/weight/max"),
        ("similar anchors", ["algo=gigpo", "algo.advantage.similarity=0.9"], "gigpo/repeated_frac"),
        ("trajectory ratio", ["algo=gspo", "algo.loss.sequence=trajectory", "algo.loss.weighting=trajectory"], ""),
        (
            "importance cap",
            ["algo=grpo", "algo.loss.importance_cap=2.0", "trainer.old_logprobs=recompute"],
            "rollout/importance/mean",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_trains(name: str, overrides: list[str], logged: str, tmp_path: Path) -> None:
    (row,) = run(tmp_path, *overrides, "trainer.updates=1", "rollout=transcript")
    assert math.isfinite(row["actor/pg_loss"])
    assert not logged or row[logged] > 0
    if name == "importance cap":
        # one model on both sides: only rounding apart
        assert row["rollout/importance/mean"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algo=gspo", "algo.loss.sequence=trajectory", "rollout=window"], "needs rollout.context=transcript"),
        (["algo=grpo", "algo.loss.importance_cap=2.0", "trainer.old_logprobs=rollout"], r"importance_cap: is not read"),
    ],
)
def test_combinations_that_cannot_work_stop_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config(*SMALL, *overrides)
