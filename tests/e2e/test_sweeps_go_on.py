"""A sweep given again: what is done is not run again, what was stopped goes on, what is another run is refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from empg_cli import config
from empg_cli.cli import launch
from empg_cli.config.schema import TrainConfig
from empg_cli.observe.stop import Stopped
from empg_cli.owner import owning

Empg = Callable[..., Result]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Notes what it was asked to train, and leaves what a finished run leaves; stops seed 1 the first time."""
    from empg_cli import loop

    asked: list[TrainConfig] = []

    def train(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        asked.append(cfg)
        config.write(cfg, run_dir / "config.yaml")
        if cfg.seed == 1 and sum(one.seed == 1 for one in asked) == 1:
            raise Stopped(signal.SIGTERM, f"empg train --resume {run_dir}")
        done: dict[str, Any] = {"exit_code": 0, "updates": cfg.trainer.updates, "last/success_rate": 0.5}
        (run_dir / "summary.json").write_text(json.dumps(done))
        return loop.RunSummary(run_dir, cfg.trainer.updates, 0.5)

    monkeypatch.setattr(loop, "train", train)
    return asked


def test_the_command_that_a_stopped_sweep_says_goes_on_with_all_its_jobs(
    empg: Empg, played: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder of one's own: its name, a time, is part of what is said."""
    monkeypatch.setattr(launch, "COMMAND_LINE", ["empg", "train", "-m", "seed=0,1,2"])
    stopped = empg("train", "-m", "seed=0,1,2", code=143)
    (sweep,) = Path("multirun").iterdir()
    assert f"To go on:  empg train -m seed=0,1,2 run_dir=multirun/{sweep.name}\n" in stopped.stderr
    assert [cfg.seed for cfg in played] == [0, 1]
    empg("train", "-m", "seed=0,1,2", f"run_dir=multirun/{sweep.name}")
    assert [(cfg.seed, cfg.resume) for cfg in played[2:]] == [(1, "auto"), (2, "auto")]
    assert len({Path(cfg.run_dir).parent for cfg in played}) == 1
    assert [Path(cfg.run_dir).name for cfg in played] == ["0-seed=0", "1-seed=1", "1-seed=1", "2-seed=2"]


def test_a_job_with_other_settings_is_run_and_another_run_is_refused(empg: Empg, played: list[TrainConfig]) -> None:
    empg("train", "-m", "seed=0,2", "run_dir=sweep")
    empg("train", "-m", "seed=0,2", "run_dir=sweep")
    assert len(played) == 2
    empg("train", "-m", "seed=0,2", "run_dir=sweep", "trainer.tokens_per_microbatch=64")
    assert len(played) == 2, "how it is carried out makes no other run of it"
    empg("train", "-m", "seed=0,2", "run_dir=sweep", "trainer.updates=77")
    assert [cfg.trainer.updates for cfg in played[2:]] == [77, 77]
    refused = empg("train", "-m", "seed=0,2", "run_dir=sweep", "algo=grpo", code=2)
    assert "holds another run: give another run_dir" in refused.stderr
    empg("train", "-m", "trainer.lr=1e-5,2e-5", "seed=5", "run_dir=other")
    refused = empg("train", "-m", "trainer.lr=1e-5,2e-5", "seed=6", "run_dir=other", code=2)
    assert "seed: cannot change when resuming (got 6); the run has 5" in refused.stderr
    assert len(played) == 6


def test_resume_null_is_obeyed(empg: Empg, played: list[TrainConfig]) -> None:
    for _ in range(2):
        empg("train", "-m", "seed=0,2", "run_dir=sweep", "resume=null")
    assert [cfg.resume for cfg in played] == [None] * 4


def test_two_sweeps_of_one_second_get_two_folders_and_one_folder_has_one_sweep(
    empg: Empg, played: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "-m", "-cd", "mine", "-cn", "fixed", "seed=0,2")
    Path("mine").mkdir()
    Path("mine/fixed.yaml").write_text("defaults: [train, _self_]\nhydra: {sweep: {dir: 'at/${now:never}'}}\n")
    empg(*words)
    empg(*words)
    assert sorted(path.name for path in Path("at").iterdir()) == ["never", "never-2"]
    with owning(Path("at/never"), "sweeping"):
        refused = empg("train", "-m", "seed=0,2", "run_dir=at/never", code=2)
    assert "is in use by process" in refused.stderr
    assert len(played) == 4
    Path("file").write_text("")
    assert "is a file, not a folder" in empg("train", "-m", "seed=0,2", "run_dir=file/x", code=2).stderr


def test_a_job_that_slurm_has_queued_again_goes_on(
    empg: Empg, played: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in ("", "0", "odd"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        empg("train", f"run_dir=run{count}")
    Path("run0/metrics.jsonl").write_text('{"update": 1}\n')
    assert "already holds a run" in empg("train", "run_dir=run0", code=2).stderr
    for count in ("1", "10"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        empg("train", "run_dir=run0")
    assert [cfg.resume for cfg in played] == [None, None, None, "auto", "auto"]


def test_an_interrupted_optuna_study_has_its_trials_in_the_end(
    empg: Empg, played: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
    from empg_cli import loop

    rest, keyword_was_pressed = loop.train, []

    def train(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        if len(played) == 1 and not keyword_was_pressed:
            keyword_was_pressed.append(cfg.trainer.lr)
            raise Stopped(signal.SIGTERM, "empg train")
        return rest(cfg, run_dir)

    monkeypatch.setattr(loop, "train", train)
    words = (
        *("train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///study.db", "run_dir=sweep"),
        *("hydra.sweeper.study_name=s", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"),
        "trainer.lr=interval(0.001,0.002)",
    )
    assert "To go on:" in empg(*words, code=143).stderr
    empg(*words)
    assert len(played) == 3
    assert played[1].trainer.lr == keyword_was_pressed[0]  # the interrupted trial is asked again
    import optuna

    study = optuna.load_study(study_name="s", storage="sqlite:///study.db")
    assert sorted(trial.state.name for trial in study.trials) == ["COMPLETE"] * 3 + ["FAIL"]
    empg(*words)
    assert len(played) == 3  # three in all
