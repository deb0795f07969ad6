"""Which step a health warning names, what it writes, and what the end of a run says."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from empg_cli.algorithms.assemble import credit_parts
from empg_cli.config import load
from empg_cli.model.batch import make_batch
from empg_cli.observe.health import TROUBLES
from empg_cli.observe.health_watch import HealthWatch, telling_step
from empg_cli.observe.summary import RunReport, print_run_summary
from empg_cli.types import Step, Task, Trajectory

CFG = load(["algo=empg"])


def episode(index: int, reward: float, entropies: list[float], *, malformed: tuple[int, ...] = ()) -> Trajectory:
    steps = [
        Step([1], [2, 3], [-1.0, -1.0], [value, value], action=f"act {index}{turn}", well_formed=turn not in malformed)
        for turn, value in enumerate(entropies)
    ]
    steps[-1].reward = reward
    return Trajectory(Task("kitchen-7", "pick", "train"), 0, index, steps, success=reward > 0)


PLAYED = [episode(0, 1.0, [0.5, 0.9]), episode(1, -0.2, [0.8, 0.1, 0.7], malformed=(1, 2))]
BATCH = make_batch(PLAYED, append_only=True)
PARTS, _ = credit_parts(CFG.algo, BATCH)
BATCH.credit_S = torch.tensor([0.1, -0.2, 0.1, 0.3, -0.9])
BATCH.ref_logprob_ST = BATCH.old_logprob_ST.clone()
BATCH.ref_logprob_ST[2, 1] -= 2.0  # k3 of the third step: (exp(-2) + 2 - 1) / 2


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("kl_spike", 2),
        ("entropy_collapse", 3),  # 0.1 nats
        ("malformed_rise", 3),  # the second episode has two such steps, this is its first
        ("success_collapse", 4),  # the last step of the episode with return -0.2
        ("no_signal", 4),
        ("grad_spike", 4),  # |-0.9|
        ("nonfinite_gradient", 4),
    ],
)
def test_the_step_that_shows_it_best(name: str, row: int) -> None:
    assert telling_step(name, PLAYED, BATCH) == row


def test_every_trouble_has_a_step_and_an_empty_batch_has_none() -> None:
    empty = make_batch([], append_only=True)
    for trouble in TROUBLES:
        assert telling_step(trouble.name, PLAYED, BATCH) is not None
        assert telling_step(trouble.name, [], empty) is None


def watch(run_dir: Path, *, done: int = 0, **changes: object) -> HealthWatch:
    settings = CFG.trainer.health.model_copy(update={"no_signal_updates": 1, **changes})
    return HealthWatch(settings, run_dir, max_grad_norm=1.0, history={}, done=done)


def test_a_warning_names_the_step_and_keeps_its_trajectory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watching = watch(tmp_path)
    with caplog.at_level(logging.WARNING):
        for update in (1, 2):
            counts = watching.watch(update, {"group/zero_std_frac": 1.0}, PLAYED, BATCH, PARTS)
    assert counts == {"health/warnings": 1.0}
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith(" See kitchen-7, group 0, episode 1, step 3: 'act 12' (health.jsonl).")
    (line,) = (tmp_path / "health.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["name"], record["update"], record["value"]) == ("no_signal", 1, 1.0)
    credits = [step["credit"] for step in record["trajectory"]["steps"]]
    assert credits == pytest.approx(PARTS.credit_S[2:].tolist(), rel=1e-5)
    assert record["trajectory"]["step"] == 3
    assert watching.stop_reason is None


def test_stop_is_asked_for_only_when_wanted(tmp_path: Path) -> None:
    watching = watch(tmp_path, stop=True)
    watching.watch(1, {"group/zero_std_frac": 0.5}, PLAYED, BATCH, PARTS)
    assert watching.stop_reason is None
    watching.watch(2, {"group/zero_std_frac": 1.0}, PLAYED, BATCH, PARTS)
    assert str(watching.stop_reason).startswith("no_signal at update 2: group/zero_std_frac 1 was 1 in each")


def test_a_resumed_run_drops_the_warnings_it_will_give_again(tmp_path: Path) -> None:
    lines = [json.dumps({"update": update}) + "\n" for update in (2, 4, 5)]
    (tmp_path / "health.jsonl").write_text("".join(lines))
    watch(tmp_path, done=4)
    assert (tmp_path / "health.jsonl").read_text() == lines[0] + lines[1]
    watch(tmp_path)  # a new run in the folder
    assert not (tmp_path / "health.jsonl").exists()


def test_the_end_of_a_run_names_spikes_and_warnings() -> None:
    report = RunReport("t", Path("r"), None, 9, 9, 1.0, "official", ["pick"], kl=0.2, kl_spikes=[3, 7])
    text = io.StringIO()
    print_run_summary(replace(report, warnings={"kl_spike": 3, "no_signal": 8}), text)
    assert "KL spikes           2, at update 3, 7\n" in text.getvalue()
    assert "health              kl_spike at update 3, no_signal at update 8\n" in text.getvalue()
    none = io.StringIO()
    print_run_summary(replace(report, kl_spikes=[]), none)
    assert "KL spikes           0\n" in none.getvalue()
    assert "health" not in none.getvalue()
