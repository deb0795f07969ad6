"""What stands between verl and us and needs no verl: rows as steps, settings as words, and the command."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import torch

from empg_cli import config
from empg_cli.integrations.verl.handover import _readable_from_anywhere, overrides
from empg_cli.integrations.verl.steps import Row, RowsError, StepFacts, runs, steps_of
from empg_cli.integrations.verl.words import notes, refused, words
from tests.e2e.conftest import invoke

VERL = ["trainer.lr_schedule=constant"]
LENGTH = "algo.loss.length_normalised"


def fact(reward: float, penalty: float = 0.0, observation: str = "") -> StepFacts:
    return {"reward": reward, "penalty": penalty, "observation": observation, "is_valid": True}


def row(key: str, mask: list[int], entropy: list[float], *facts: StepFacts, is_padding: bool = False) -> Row:
    return Row(key, torch.tensor(mask).bool(), torch.tensor(entropy), facts or None, 0.0, is_padding)


def test_runs_are_stretches_of_sampled_tokens() -> None:
    assert runs(torch.tensor([1, 1, 0, 1, 0, 0, 1])) == [(0, 2), (3, 4), (6, 7)]
    assert runs(torch.tensor([0, 0, 1, 1])) == [(2, 4)]
    assert runs(torch.tensor([0])) == []


def test_rows_of_sessions_become_steps_in_the_order_they_were_taken() -> None:
    steps = steps_of(
        [
            row("a_b_1_1", [1, 1], [1.0, 2.0], fact(-0.1, 0.1, "second")),
            row("a_b_0_0", [1, 1, 0, 1], [0.5, 1.5, 9.0, 3.0], fact(0.0), fact(10.0)),  # a transcript
            row("pad_0_0", [0], [7.0], fact(5.0), is_padding=True),
            row("a_b_1_0", [1], [4.0], fact(0.0, 0.0, "first")),
        ]
    )
    assert steps.table.entropy_S.tolist() == [4.0, 1.5, 1.0, 3.0]
    assert steps.table.next_S.tolist() == [1, -1, 3, -1]
    assert steps.table.trajectory_S.tolist() == [0, 0, 1, 1] and steps.table.group_N.tolist() == [0, 0]
    assert steps.table.reward_N.tolist() == pytest.approx([-0.1, 10.0])
    assert steps.table.task_reward_S.tolist() == pytest.approx([0.0, 0.0, 0.0, 10.0])
    assert steps.table.anchor_S == ("first", "second", "", "") and steps.table.tokens_S.tolist() == [1, 2, 2, 1]
    spread = steps.advantages(torch.tensor([1.0, 2.0, 3.0, 4.0]), num_tokens=5)
    assert spread.tolist() == [[2, 2, 0, 0, 0], [3, 3, 0, 4, 0], [0] * 5, [1, 0, 0, 0, 0]]


def test_agent_loops_of_others_give_a_reward_at_the_end_and_no_observations() -> None:
    mask = torch.tensor([1, 0, 1]).bool()
    others = [Row(f"a_{n}_0", mask, torch.ones(3), None, reward=float(n)) for n in range(2)]
    table = steps_of(others).table
    assert table.reward_S.tolist() == [0.0, 0.0, 0.0, 1.0] and table.reward_N.tolist() == [0.0, 1.0]
    assert table.anchor_S == ()


def test_an_episode_that_is_left_alone_is_in_no_statistic() -> None:
    both = [row(f"a_{session}_0", [1], [1.0], fact(session)) for session in range(2)]
    steps = steps_of([row("alone_0_0", [1, 1], [99.0, 99.0], fact(7.0)), *both])
    assert steps.table.entropy_S.tolist() == [1.0, 1.0] and steps.num_rows == 3
    assert steps_of([row("alone_0_0", [1], [1.0], fact(7.0))]).table.entropy_S.tolist() == []


def test_rows_that_are_none_of_verls_are_refused() -> None:
    with pytest.raises(RowsError, match="named 'a_0', not UID_SESSION_INDEX"):
        steps_of([row("a_0", [1], [1.0]), row("a_1", [1], [1.0])])
    with pytest.raises(RowsError, match="2 stretches of sampled tokens, and 1 steps were noted"):
        steps_of([row("a_0_0", [1, 0, 1], [1.0] * 3, fact(0.0)), row("a_1_0", [1], [1.0], fact(0.0))])


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (["trainer.lr_schedule=linear"], "trainer.lr_schedule"),
        (["trainer.optimizer=adamw8bit"], "trainer.optimizer"),
        (["trainer.warm_start.steps=5"], "trainer.warm_start"),
        (["model=tiny-scratch"], "model.init"),
        (["dist=cluster"], "dist"),
        (["dist=node"], "dist.processes"),
        (["model.lora.alpha=1.5"], "model.lora.alpha"),
        (["rollout.engine=vllm", "rollout.max_staleness=1", "trainer.old_logprobs=recompute"], "rollout.max_staleness"),
        (["rollout=window", "algo.loss.weighting=step"], "algo.loss.weighting"),
        (["rollout=window", "algo.loss.weighting=trajectory"], "algo.loss.weighting"),
        (["rollout=transcript", "algo.loss.weighting=step"], "algo.loss.weighting"),
        (["algo=gspo", "rollout=transcript", "algo.loss.weighting=token"], "algo.loss.sequence"),
        (
            ["algo=gspo", "algo.loss.weighting=token", "algo.loss.length_normalised=false"],
            "algo.loss.length_normalised",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_verl_would_do_otherwise_is_refused(given: list[str], key: str) -> None:
    assert [problem.key for problem in refused(config.load([*VERL, "rollout=window", *given]))] == [key]


def test_an_update_of_windows_is_one_optimiser_step_where_one_is_asked_for() -> None:
    """verl pads the rows to a multiple of ppo_mini_batch_size x group and steps once for each: 16 tasks of up to 50
    rows are at most one multiple."""
    given = [*VERL, "trainer.tasks_per_update=16", "benchmark.max_steps=50", "trainer.minibatches=1"]
    size = "actor_rollout_ref.actor.ppo_mini_batch_size"
    assert words(config.load([*given, "rollout=window"]))[size] == 800
    assert words(config.load([*given, "rollout=transcript"]))[size] == 16
    assert words(config.load([*given, "rollout=window", "trainer.minibatches=16"]))[size] == 50


def test_words_are_quoted_for_hydra_where_they_must_be() -> None:
    values = {"a": "x/y-z.1", "b": "it's, b", "c": [1], "d": True, "e": "null"}
    found = dict(word.split("=", 1) for word in overrides(values, date(2026, 3, 1), "/f"))
    assert found["a"] == "x/y-z.1" and found["b"] == r"'it\'s, b'" and found["c"] == "[1]"
    assert found["d"] == "true" and found["e"] == "'null'" and found["+trainer.v1.empg.prompt_date"] == "2026-03-01"


def test_the_command_writes_a_folder_and_says_what_is_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs the extra: empg-cli[parquet]")
    import pyarrow.parquet as pq

    given = (
        *VERL,
        "benchmark.train_games=3",
        "trainer.tasks_per_update=3",
        "benchmark.eval_tasks=2",
        "algo.loss.kl_coef=0.01",
    )
    shown = invoke("verl", f"out={tmp_path / 'v'}", *given)
    assert "train.parquet: 3 tasks, eval.parquet: 2 tasks" in shown.stdout
    assert "verl bounds a token's k3 estimate at 10" in shown.stdout
    names = sorted(path.name for path in (tmp_path / "v").iterdir())
    assert names == ["empg.yaml", "eval.parquet", "run.sh", "train.parquet"]
    (first, *_) = pq.read_table(tmp_path / "v" / "eval.parquet").to_pylist()
    assert first["agent_name"] == "empg" and first["extra_info"]["index"] == 0
    again = invoke("verl", f"out={tmp_path / 'v'}", *given, code=2)
    assert "is there already" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["out=v", "trainer.lr_schedule=linear"], "trainer.lr_schedule: (linear) is none of verl's"),
        (["out=v", "algo.zeta=1"], "algo.zeta"),
        (["model=tiny"], "out: must be given"),
    ],
)
def test_mistakes_end_in_a_sentence_and_write_nothing(
    given: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = invoke("verl", *given, code=2)
    assert says in shown.stderr and not list(tmp_path.iterdir())


def test_fewer_tasks_than_a_batch_needs_are_refused(tmp_path: Path) -> None:
    """verl would divide by the batches of an epoch, of which there are none."""
    pytest.importorskip("pyarrow", reason="Parquet needs the extra: empg-cli[parquet]")
    given = (*VERL, "benchmark.train_games=3", "trainer.tasks_per_update=4")
    shown = invoke("verl", f"out={tmp_path / 'v'}", *given, code=2)
    assert "needs 4 training tasks for a batch" in shown.stderr and "set trainer.tasks_per_update=3" in shown.stderr
    assert not list(tmp_path.iterdir())


def test_the_data_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    cfg = config.load([*VERL, "benchmark.data_dir=data"])
    assert _readable_from_anywhere(cfg).benchmark.data_dir == str(tmp_path.resolve() / "data")
    assert _readable_from_anywhere(config.load(list(VERL))).benchmark.data_dir is None


def test_without_verl_the_plugin_says_what_to_install() -> None:
    if importlib.util.find_spec("verl") is not None:
        pytest.skip("verl is installed here")
    done = subprocess.run(
        [sys.executable, "-c", "import empg_cli.integrations.verl.plugin"], capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: empg cannot join verl") and "verl[vllm]==0.9.1" in last


def test_notes_say_what_is_otherwise() -> None:
    loud = notes(config.load([*VERL, "rollout=window", "algo=dapo_empg", "trainer.minibatches=2"]))
    assert any("warm-up begins at 0" in note for note in notes(config.load([*VERL, "trainer.lr_warmup=5"])))
    assert not any("warm-up" in note for note in notes(config.load([*VERL, "trainer.lr_warmup=0"])))
    assert any("max_resamples" in note for note in loud) and any("minibatches" in note for note in loud)
