"""The analyses behind docs/studies, on numbers made by hand and on a tiny policy."""

from __future__ import annotations

import csv
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from empg_cli import config
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.learner.checkpoint import save_checkpoint
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.loading import load_policy
from empg_cli.runs.checkpoint import TrainState
from empg_cli.runs.study import read_study
from scripts.why import one_step, recompute, records, shapley
from scripts.why.one_step import KINDS, GradientStep, Setup, Steps
from tests.support.made import made_trajectories
from tests.support.tiny import SCRATCH, tiny_config, tiny_policy
from tests.unit.test_ablation_tables import make as made_study

WORDS = (
    *SCRATCH, "trainer.threads=1", "benchmark.max_steps=4", "rollout.max_new_tokens=4", "trainer.tasks_per_update=2",
    "algo.group_size=3", "trainer.lr=0.01", "logger.console=quiet",
)  # fmt: skip


# --- one step --------------------------------------------------------------------------------------------


def test_steps_are_valid_refused_or_repeat_what_was_refused() -> None:
    (trajectory,) = made_trajectories([6])
    for step, (action, admissible) in zip(
        trajectory.steps, [("a", True), ("b", False), ("b", False), ("a", True), ("c", False), ("b", True)], strict=True
    ):
        step.action, step.admissible, step.well_formed = action, admissible, True
    found = one_step.described([trajectory])
    assert [KINDS[int(kind)] for kind in found.kind] == ["valid", "refused", "repeated", "valid", "refused", "valid"]
    assert found.length.tolist() == [6.0] * 6


def test_shares_of_an_explanation_by_hand() -> None:
    rng = np.random.default_rng(0)
    steps = Steps(np.zeros(400), rng.integers(0, 3, 400).astype(float), rng.integers(1, 9, 400) * 1.0, rng.random(400))
    by = {row["by"]: row for row in one_step.explanations(steps, 3 * steps.entropy + 2)}
    assert by["entropy"]["alone"] == pytest.approx(1)
    assert by["validity"]["alone"] < 0.05 > by["length"]["alone"]
    assert sum(row["share"] for row in by.values()) == pytest.approx(by["length"]["joint"]) == pytest.approx(1)
    assert all(row["joint"] == 0 for row in one_step.explanations(steps, np.full(400, 2.0)))


def test_one_batch_under_several_credits() -> None:
    variants = {"grpo": ["algo=grpo"], "same": ["algo=empg", "algo.credit.k=0", "algo.credit.zeta=0",
                "algo.credit.center=false"], "empg": ["algo=empg"]}  # fmt: skip
    changes, explained = one_step.one_batch([*WORDS, "seed=1"], variants, Setup())
    whole = {row["variant"]: row for row in changes if row["action"] == "all"}
    for key in ("n", "credit", "d_logprob", "d_entropy"):
        assert whole["same"][key] == whole["grpo"][key], "the same weights, batch and credit: the same step"
    assert whole["empg"]["d_logprob"] != whole["grpo"]["d_logprob"] != 0
    assert whole["empg"]["credit"] == pytest.approx(0, abs=1e-6)
    parts = [row for row in changes if row["variant"] == "empg" and row["action"] != "all"]
    assert sum(row["n"] for row in parts) == whole["empg"]["n"]
    assert sum(row["n"] * row["d_logprob"] for row in parts) == pytest.approx(
        whole["empg"]["n"] * whole["empg"]["d_logprob"]
    )
    assert {row["joint"] for row in explained if row["variant"] == "same"} == {0.0}
    assert {(row["variant"], row["of"], row["by"]) for row in explained} == set(
        itertools.product(("same", "empg"), ("credit", "logprob"), ("entropy", "validity", "length"))
    )


def test_it_is_one_step_whatever_the_settings_say() -> None:
    variants = {"grpo": ["algo=grpo", "trainer.minibatches=2"]}
    for setup in (Setup("adamw"), Setup("sgd")):
        once, _ = one_step.one_batch([*WORDS, "trainer.minibatches=1", "trainer.epochs=1"], variants, setup)
        assert one_step.one_batch([*WORDS, "trainer.minibatches=2", "trainer.epochs=2"], variants, setup)[0] == once


def test_a_gradient_step_has_its_length_and_the_gradients_direction() -> None:
    policy = tiny_policy(tiny_config())
    first, second = policy.parameters()[:2]
    optimizer = GradientStep(policy, 0.1)
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert first.grad is not None and second.grad is not None
    first.grad.view(-1)[0], second.grad.view(-1)[1] = 30.0, -40.0  # length 50: the step is -.06 and +.08
    optimizer.step()
    changes = [new.detach() - old for new, old in zip(policy.parameters(), before, strict=True)]
    assert float(changes[0].view(-1)[0]) == pytest.approx(-0.06, abs=1e-6)
    assert float(changes[1].view(-1)[1]) == pytest.approx(0.08, abs=1e-6)
    assert sum(int((change != 0).sum()) for change in changes) == 2
    optimizer.zero_grad()
    optimizer.step()
    assert all((parameter == old + change).all() for parameter, old, change in
               zip(policy.parameters(), before, changes, strict=True)), "no gradient, no step"  # fmt: skip


def test_a_gradient_step_sees_the_size_of_a_loss_in_the_norm_alone() -> None:
    half = ["algo=grpo", "algo.loss.weighting=constant", "algo.loss.constant_tokens=20"]
    variants = {"half": half, "whole": [*half[:-1], "algo.loss.constant_tokens=10"]}
    changes, _ = one_step.one_batch([*WORDS, "seed=1"], variants, Setup())
    one, two = (next(row for row in changes if row["variant"] == name) for name in variants)
    assert two["grad_norm"] == pytest.approx(2 * one["grad_norm"], rel=1e-4) != 0
    assert two["d_logprob"] == pytest.approx(one["d_logprob"], rel=1e-3) != 0


def test_from_a_checkpoint_with_its_moments_and_the_runs_reference(tmp_path: Path) -> None:
    cfg = tiny_config(*WORDS, "seed=3", "algo=grpo", "algo.loss.kl_coef=0.1")
    policy = tiny_policy(cfg)
    config.write(cfg, tmp_path / "config.yaml")
    optimizer = make_optimizer(policy, cfg.trainer)
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint = save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=1)
    assert checkpoint is not None
    learner = Setup("adamw", checkpoint=checkpoint).learner(tiny_config(*WORDS, "seed=0", "algo.loss.kl_coef=0.1"))
    run_began_with = load_policy(
        cfg.model, "alfworld", words=closed_vocabulary("alfworld"), seed=3, device=torch.device("cpu")
    )
    assert learner.reference is not None
    for found, wanted in ((learner.policy, policy), (learner.reference, run_began_with)):
        for one, other in zip(found.model.parameters(), wanted.model.parameters(), strict=True):
            assert torch.equal(one, other)
    moments = learner.optimizer.state[learner.policy.parameters()[0]]
    assert moments["step"] == 1 and moments["exp_avg"].flatten()[0] == pytest.approx(0.1)
    assert not Setup("adamw").learner(cfg).optimizer.state, "without a checkpoint the moments are empty"


def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path: Path) -> None:
    words = ["-m", "scripts.why.one_step", "--out", str(tmp_path / "out"), *WORDS]
    for more, said in (
        (["--model", str(tmp_path)], "has no model/: give a checkpoint"),
        (["algo.group_size=1x"], "algo.group_size"),
    ):
        answer = subprocess.run([sys.executable, *words, *more], capture_output=True, text=True, check=False)
        assert (answer.returncode, said in answer.stderr, "Traceback" in answer.stderr) == (2, True, False)


# --- shares of a gain ------------------------------------------------------------------------------------


def test_shapley_values_by_hand() -> None:
    # scale alone 2, with centre 5, bonus never anything: centre has half of the 3 that the pair adds, and none alone
    value = dict.fromkeys(map(shapley.cell_of, shapley.subsets()), 0.0)
    value |= {"scale": 2, "scale-bonus": 2, "scale-center": 5, "scale-center-bonus": 5}
    assert shapley.shapley(value) == pytest.approx({"scale": 3.5, "center": 1.5, "bonus": 0})


def test_shares_add_up_to_the_gain() -> None:
    rng = random.Random(0)
    value = {shapley.cell_of(parts): rng.random() for parts in shapley.subsets()}
    assert sum(shapley.shapley(value).values()) == pytest.approx(value["scale-center-bonus"] - value["none"])


def test_the_cells_are_those_of_the_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    from empg_cli.config.location import conf_dir

    variants = yaml.safe_load((conf_dir() / "ablation" / "mechanism.yaml").read_text())["variants"]
    assert set(variants) == set(map(shapley.cell_of, shapley.subsets()))
    (tmp_path / "study.json").write_text(json.dumps({"metric": "eval/success_rate", "seeds": [0, 1, 2]}))
    for number, name in enumerate(variants):
        for seed in range(3):
            (tmp_path / f"{name}-s{seed}").mkdir()
            rows = [
                {"update": 1, "eval/success_rate": 9.0},
                {"update": 2, "eval/success_rate": number + seed * (name == "scale")},
            ]
            (tmp_path / f"{name}-s{seed}" / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    sys.argv = ["shapley", str(tmp_path)]
    shapley.main()
    assert "| all | +7.0000 |" in capsys.readouterr().out


# --- numbers anew ----------------------------------------------------------------------------------------


def test_the_auditors_script_agrees_with_the_tables_and_sees_a_wrong_one(tmp_path: Path) -> None:
    from empg_cli.reports.ablation_tables import write_tables
    from empg_cli.studies.comparison import compare

    study = made_study(tmp_path / "study")
    comparison = compare(study)
    assert comparison is not None
    write_tables(comparison, study.folder)
    script = str(Path(recompute.__file__))

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, script, str(study.folder)], capture_output=True, text=True, check=False)

    answer = run()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "study better: 4 seeds" in answer.stdout
    rows = list(csv.DictReader((study.folder / "ablation.csv").open()))
    for key in ("mean", "low", "difference", "difference_high", "p", "p_holm"):
        changed = [row | {key: str(float(row[key]) + 1e-6)} if row["variant"] == "better" else row for row in rows]
        with (study.folder / "ablation.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(changed)
        answer = run()
        assert answer.returncode == 1, key
        assert f"study better {key}:" in answer.stdout


def test_the_auditors_script_imports_nothing_of_ours() -> None:
    assert "empg_cli" not in Path(recompute.__file__).read_text().replace("nothing of empg", "")


# --- records ---------------------------------------------------------------------------------------------


def test_a_study_that_was_packed_goes_on_where_it_was(tmp_path: Path) -> None:
    study = made_study(tmp_path / "study")
    (tmp_path / "study" / "grpo-s0" / "checkpoints").mkdir()
    (tmp_path / "study" / "grpo-s0" / "checkpoints" / "weights").write_bytes(b"0" * 1000)
    (tmp_path / "study" / "better-s3" / "summary.json").unlink()  # is being played
    archive = tmp_path / "kept.tar.xz"
    assert records.pack(study.folder, archive) == 11
    before = archive.read_bytes()
    records.pack(study.folder, archive)
    assert archive.read_bytes() == before
    assert records.unpack(archive, tmp_path / "again") > 30
    again = read_study(tmp_path / "again")
    assert [cell.folder for cell in again.pending()] == ["better-s3"]
    assert len(again.done()) == 11
    assert not list((tmp_path / "again").rglob("weights"))
    (tmp_path / "again" / "grpo-s0" / "metrics.jsonl").write_text("newer")
    assert records.unpack(archive, tmp_path / "again") == 0
    assert (tmp_path / "again" / "grpo-s0" / "metrics.jsonl").read_text() == "newer"
