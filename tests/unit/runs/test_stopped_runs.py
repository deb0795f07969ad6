"""A signal in the middle of a training: where it is obeyed, what stays, and that the run goes on bit for bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empg_cli import experiment as experiment_module
from empg_cli import loop
from empg_cli.learner import learner as learner_module
from empg_cli.learner import update as update_module
from empg_cli.model.loading import ModelError
from empg_cli.model.memory import OutOfMemory
from empg_cli.observe import observer as observer_module
from empg_cli.observe.health import HealthStop
from empg_cli.observe.stop import Stopped
from empg_cli.rollout import episode as episode_module
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.abandoned import branches
from empg_cli.runs.checkpoint import all_checkpoints, load_state
from empg_cli.runs.rows import without_wall_clock
from empg_cli.runs.which_checkpoint import hold_checkpoint
from empg_cli.services.errors import ServerDown
from tests.support.tiny import tiny_config

WORDS = (
    *("algo.group_size=2", "trainer.tasks_per_update=2", "trainer.minibatches=2", "benchmark.eval_tasks=2"),
    *("trainer.updates=2", "trainer.eval_every=1", "trainer.checkpoint_every=5", "logger.wandb.mode=disabled"),
    *("trainer.tokens_per_microbatch=200", "benchmark.max_steps=3", "algo.loss.kl_coef=0.01"),
    "trainer.health.preflight=off",
)
EVALUATION, ROLLOUT = 2 * 3, 2 * 2 * 3
"""Turns."""


def train(folder: Path, *words: str) -> None:
    loop.train(tiny_config(*WORDS, *words), folder / "run")


def outcome(folder: Path) -> list[Any]:
    run = folder / "run"
    rows = [without_wall_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    newest = all_checkpoints(run)[-1]
    weights = (newest / "model" / "model.safetensors").read_bytes()
    return [*rows, (run / "histograms.jsonl").read_text(), weights, load_state(newest)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("straight")
    train(folder)
    return outcome(folder)


class Trap:
    """Something happens before the n-th call of a function."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.calls = 0

    def __call__(self, module: Any, name: str, number: int, error: Exception | None = None) -> None:
        original = getattr(module, name)

        def trapped(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == number:
                if error:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments, **options)

        self._patch.setattr(module, name, trapped)


@pytest.fixture
def trap() -> Iterator[Trap]:
    with pytest.MonkeyPatch.context() as patch:
        yield Trap(patch)
        patch.undo()


@pytest.mark.parametrize(
    ("module", "name", "call", "checkpoint", "calls_after"),
    [
        (episode_module, "settle", 2, 0, 2),
        (episode_module, "settle", EVALUATION + 5, 0, 4),
        (learner_module, "score_batch", 1, 0, 0),
        (update_module, "compute_loss", 1, 0, 0),
        (update_module, "was_finite", 2, 1, 0),
        (episode_module, "settle", EVALUATION + ROLLOUT + 2, 1, 2),
        (observer_module, "print_run_summary", 1, 2, 0),
    ],
    ids=["first evaluation", "rollout", "scoring", "gradient", "after a step", "evaluation", "summary"],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    module: Any,
    name: str,
    call: int,
    checkpoint: int,
    calls_after: int,
    straight: list[Any],
    trap: Trap,
    tmp_path: Path,
) -> None:
    """
    Args:
        checkpoint: the newest that is left.
        calls_after: at most so many calls of the function follow the signal, the turns of the other episodes say.
    """
    trap(module, name, call)
    with pytest.raises(Stopped) as stopped:
        train(tmp_path)
    assert stopped.value.signum == signal.SIGTERM
    assert trap.calls <= call + calls_after
    assert load_state(all_checkpoints(tmp_path / "run")[-1]).update == checkpoint
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["exit_code"], summary["updates"]) == (143, checkpoint)
    train(tmp_path, "resume=auto")
    assert outcome(tmp_path) == straight


@pytest.mark.parametrize("eval_every", [1, 2], ids=["with an evaluation", "without one"])
def test_a_run_whose_servers_are_gone_after_an_update_goes_on_bit_for_bit(
    eval_every: int, straight: list[Any], trap: Trap, tmp_path: Path
) -> None:
    """Weights cannot be published: the update stands, the next process logs its row, and plays an evaluation where one
    is due."""
    words, expected = (f"trainer.eval_every={eval_every}",), straight
    if eval_every == 2:
        train(tmp_path / "straight", *words)
        expected = outcome(tmp_path / "straight")
    trap(TorchEngine, "publish", 2, ServerDown("gone"))
    with pytest.raises(HealthStop, match="gone"):
        train(tmp_path, *words)
    assert load_state(all_checkpoints(tmp_path / "run")[-1]).update == 1
    train(tmp_path, *words, "resume=auto")
    assert outcome(tmp_path) == expected
    evaluated = [path.name for path in sorted((tmp_path / "run" / "evaluations").glob("*.json"))]
    assert len(evaluated) == (3 if eval_every == 1 else 2)


def test_a_signal_does_not_cut_off_the_save_of_a_run_whose_servers_are_gone(
    trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = learner_module.Learner.save

    def signalled(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return save(*given)

    monkeypatch.setattr(learner_module.Learner, "save", signalled)
    trap(TorchEngine, "publish", 2, ServerDown("gone"))
    with pytest.raises(HealthStop, match="gone"):
        train(tmp_path)
    assert load_state(all_checkpoints(tmp_path / "run")[-1]).update == 1


def test_an_evaluation_that_was_cut_short_is_played_once_more_and_not_again(
    straight: list[Any], trap: Trap, tmp_path: Path
) -> None:
    trap(episode_module, "settle", EVALUATION + ROLLOUT + 2)
    with pytest.raises(Stopped):
        train(tmp_path)
    assert load_state(all_checkpoints(tmp_path / "run")[-1]).unlogged is not None
    trap.calls = -EVALUATION  # the evaluation, then two turns of the next rollout
    trap(episode_module, "settle", 2)
    with pytest.raises(Stopped):
        train(tmp_path, "resume=auto")
    (newest,) = all_checkpoints(tmp_path / "run")
    assert (load_state(newest).update, load_state(newest).unlogged) == (1, None)
    train(tmp_path, "resume=auto")
    assert outcome(tmp_path) == straight


def test_a_command_that_is_refused_leaves_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration is read again by the next command, and a study reads its summary."""
    train(tmp_path)
    run = tmp_path / "run"
    before = {name: (run / name).read_bytes() for name in ("config.yaml", "run.json", "summary.json")}

    def refuse(policy: Any) -> None:
        raise ModelError("not this one")

    monkeypatch.setattr(experiment_module, "check_parity", refuse)
    with pytest.raises(ModelError):
        train(tmp_path, "resume=auto", "trainer.updates=3")
    assert {name: (run / name).read_bytes() for name in before} == before
    monkeypatch.undo()
    train(tmp_path, "resume=auto", "trainer.updates=3")
    assert b"updates: 3" in (run / "config.yaml").read_bytes()


def test_a_rewind_that_is_refused_is_a_run_that_ended_where_it_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came later is set aside, and its summary with it: a sweep would count what is left as done."""
    words = ("trainer.checkpoint_every=1", "trainer.keep_checkpoints=3")
    train(tmp_path, *words)
    run = tmp_path / "run"
    config = (run / "config.yaml").read_bytes()

    def refuse(policy: Any) -> None:
        raise ModelError("not this one")

    monkeypatch.setattr(experiment_module, "check_parity", refuse)
    with pytest.raises(ModelError):
        train(tmp_path, *words, f"resume={run}/checkpoints/step-000001", "trainer.eval_every=2")
    assert (run / "config.yaml").read_bytes() == config
    assert not (run / "summary.json").exists() and len(branches(run)) == 1
    assert [path.name for path in all_checkpoints(run)] == ["step-000001"]
    monkeypatch.undo()
    train(tmp_path, *words, "resume=auto")
    assert json.loads((run / "summary.json").read_text())["updates"] == 2


def test_a_checkpoint_that_somebody_reads_is_not_written_again(trap: Trap, tmp_path: Path) -> None:
    trap(episode_module, "settle", EVALUATION + ROLLOUT + 2)
    with pytest.raises(Stopped):
        train(tmp_path)
    held = hold_checkpoint(tmp_path / "run")
    assert held.checkpoint.name == "step-000001"
    inode = held.checkpoint.stat().st_ino
    train(tmp_path, "resume=auto", "trainer.keep_checkpoints=3")
    assert held.checkpoint.stat().st_ino == inode and load_state(held.checkpoint).unlogged is not None
    held.release()


def test_a_signal_before_anything_was_played_leaves_no_checkpoint(trap: Trap, tmp_path: Path) -> None:
    from empg_cli import experiment

    trap(experiment, "check_parity", 1)
    with pytest.raises(Stopped, match="--resume"):
        train(tmp_path)
    assert not all_checkpoints(tmp_path / "run")


def test_a_warm_start_that_is_stopped_leaves_nothing_half(
    trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empg_cli.model.policy import Policy

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ("trainer.warm_start.steps=2", "trainer.warm_start.batch_size=2", "trainer.warm_start.keep_failed=true")
    trap(Policy, "save", 1)
    with pytest.raises(Stopped):
        train(tmp_path, *words)
    assert not list((tmp_path / "cache").rglob("*tmp*"))


def test_memory_that_runs_out_in_a_rollout_loses_nothing(trap: Trap, straight: list[Any], tmp_path: Path) -> None:
    full = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
    trap(learner_module, "score_batch", 1, full)
    with pytest.raises(OutOfMemory, match=r"phase logprob.*\n(.*\n)*.*tokens_per_microbatch=200 .*\n(.*\n)*.*--resume"):
        train(tmp_path)
    assert [load_state(path).update for path in all_checkpoints(tmp_path / "run")] == [0]
    train(tmp_path, "resume=auto")
    assert outcome(tmp_path) == straight


def test_memory_that_runs_out_after_an_optimiser_step_saves_no_half_update(trap: Trap, tmp_path: Path) -> None:
    trap(update_module, "was_finite", 2, MemoryError())
    with pytest.raises(OutOfMemory):
        train(tmp_path)
    assert not all_checkpoints(tmp_path / "run")
