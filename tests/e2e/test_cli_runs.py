"""Runs, sweeps, resuming and evaluating through the real command line, with a model of a few thousand weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from empg_cli.cli import launch
from empg_cli.config import load
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import JobFailed
from empg_cli.observe.stop import Stopped

Empg = Callable[..., Result]
Small = tuple[str, ...]


def config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return loaded


@pytest.fixture
def fake_loop(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Notes what it was asked to train instead of training, for tests of everything around the loop."""
    from empg_cli import loop

    asked: list[TrainConfig] = []

    def train(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        assert run_dir.is_dir()
        asked.append(cfg)
        return loop.RunSummary(run_dir, cfg.trainer.updates, 0.25)

    monkeypatch.setattr(loop, "train", train)
    return asked


def test_a_run_leaves_its_config_metrics_and_log(finished_run: Path) -> None:
    assert config(finished_run)["trainer"]["updates"] == 2
    assert config(finished_run)["run_dir"] == str(finished_run)
    updates = [json.loads(line)["train/update"] for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert updates == [0, 1, 2]
    assert (finished_run / "checkpoints" / "step-000002").is_dir()
    log = (finished_run / "train.log").read_text()
    assert "empg with tiny-scratch on alfworld, seed 0" in log
    assert "\x1b" not in log


def test_run_folder_is_named_by_what_runs(empg: Empg, fake_loop: list[TrainConfig]) -> None:
    empg("train", "algo=grpo", "seed=3")
    assert fake_loop[0].algo.name == "grpo"
    (folder,) = Path("runs/alfworld-grpo-tiny").iterdir()
    assert folder.name.endswith("-s3")
    assert Path(fake_loop[0].run_dir) == folder.resolve()


def test_flags_may_stand_anywhere(empg: Empg, fake_loop: list[TrainConfig]) -> None:
    empg("train", "algo=grpo", "-m", "seed=1,2", "trainer.lr=1e-5")
    assert [(cfg.algo.name, cfg.seed, cfg.trainer.lr) for cfg in fake_loop] == [("grpo", 1, 1e-5), ("grpo", 2, 1e-5)]


def test_a_sweep_runs_in_order_and_names_folders_by_what_varies(empg: Empg, fake_loop: list[TrainConfig]) -> None:
    empg("train", "-m", "algo=grpo,empg", "trainer.lr=1e-5", "seed=0,1")
    assert [(cfg.algo.name, cfg.seed) for cfg in fake_loop] == [("grpo", 0), ("grpo", 1), ("empg", 0), ("empg", 1)]
    (sweep,) = Path("multirun").iterdir()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == [
        "0-algo=grpo,seed=0",
        "1-algo=grpo,seed=1",
        "2-algo=empg,seed=0",
        "3-algo=empg,seed=1",
    ]
    assert [Path(cfg.run_dir).name for cfg in fake_loop][2] == "2-algo=empg,seed=0"


def test_a_sweep_goes_where_run_dir_says(empg: Empg, fake_loop: list[TrainConfig]) -> None:
    empg("train", "-m", "seed=0,1", "run_dir=here/it is")
    assert sorted(path.name for path in Path("here/it is").iterdir() if path.is_dir()) == ["0-seed=0", "1-seed=1"]


def test_a_sweep_over_paths_makes_no_deep_folders(empg: Empg, fake_loop: list[TrainConfig], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    empg("train", "-m", f"benchmark.data_dir=null,{tmp_path / 'data'}", "run_dir=sweep")
    assert [Path(cfg.run_dir).parent.name for cfg in fake_loop] == ["sweep", "sweep"]


def test_configs_of_ones_own(empg: Empg, fake_loop: list[TrainConfig]) -> None:
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/short.yaml").write_text("# @package _global_\ntrainer: {updates: 1}\n")
    Path("mine/other.yaml").write_text("defaults: [train, _self_]\nseed: 42\n")
    empg("train", "--config-dir", "mine", "experiment=short")
    empg("train", "-cd", "mine", "-cn", "other")
    assert [(cfg.trainer.updates, cfg.seed) for cfg in fake_loop] == [(1, 0), (load().trainer.updates, 42)]


def test_looking_at_the_config_runs_nothing(empg: Empg) -> None:
    shown = empg("train", "--cfg", "job", "--resolve", "-p", "algo.loss", "algo=dapo")
    assert yaml.safe_load(shown.stdout)["clip_high"] == 0.28
    assert "conf" in empg("train", "--info", "searchpath").stdout
    assert "defaults" in empg("train", "--info").stdout.lower()
    assert list(Path().iterdir()) == []


def test_a_failing_job_is_logged_where_it_ran_and_the_sweep_goes_on(
    empg: Empg, fake_loop: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from empg_cli import loop

    works = loop.train

    def fails_for_seed_0(cfg: TrainConfig, run_dir: Path) -> loop.RunSummary:
        if cfg.seed == 0:
            raise ZeroDivisionError("a bug in the loop")
        return works(cfg, run_dir)

    monkeypatch.setattr(loop, "train", fails_for_seed_0)
    result = empg("train", "-m", "seed=0,1", "run_dir=sweep", code=1)
    assert "ZeroDivisionError: a bug in the loop" in result.stderr
    assert "fails_for_seed_0" in Path("sweep/0-seed=0/train.log").read_text()
    assert [cfg.seed for cfg in fake_loop] == [1]


def test_a_stopped_sweep_ends_and_says_how_all_of_it_goes_on(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    from empg_cli import loop

    def stops(cfg: TrainConfig, run_dir: Path) -> None:
        raise Stopped(signal.SIGTERM, f"empg train --resume {run_dir}")

    monkeypatch.setattr(loop, "train", stops)
    monkeypatch.setattr(launch, "COMMAND_LINE", ["empg", "train", "-m", "seed=0,1", "run_dir=sweep"])
    result = empg("train", "-m", "seed=0,1", "run_dir=sweep", code=143)
    assert "To go on:  empg train -m seed=0,1 run_dir=sweep\n" in result.stderr
    assert "--resume" not in result.stderr
    assert [path.name for path in Path("sweep").iterdir() if path.is_dir()] == ["0-seed=0"]  # the sweep ends too


def test_worker_errors_survive_pickling() -> None:
    import pickle

    stopped = pickle.loads(pickle.dumps(Stopped(signal.SIGINT, "empg train --resume x")))
    assert (stopped.exit_code, stopped.hint) == (130, "empg train --resume x")
    assert str(pickle.loads(pickle.dumps(JobFailed("why")))) == "why"


@pytest.mark.slow
def test_sigterm_saves_and_resume_finishes(tmp_path: Path, small: Small) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "empg_cli", "train"]
    first = subprocess.Popen(
        [*command, *small, "trainer.updates=400", f"run_dir={run}"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert first.stderr is not None
    seen = []
    for line in first.stderr:
        seen.append(line)
        if "update 1/400" in line:
            first.send_signal(signal.SIGTERM)
            break
    rest = first.communicate(timeout=120)[1]
    assert first.returncode == 143, "".join(seen) + rest
    assert "-m empg_cli train --resume run" in rest  # relative to where it was started
    done = [json.loads(line)["train/update"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    more = subprocess.run(
        [*command, "--resume", str(run), f"trainer.updates={int(done[-1]) + 1}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert more.returncode == 0, more.stderr
    after = [json.loads(line)["train/update"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert after == [*done, done[-1] + 1]


def test_resume_reads_the_runs_own_config(empg: Empg, finished_run: Path, fake_loop: list[TrainConfig]) -> None:
    empg("train", "--resume", finished_run, "trainer.updates=9")
    (resumed,) = fake_loop
    saved = config(finished_run)
    assert resumed.trainer.updates == 9
    assert (resumed.resume, resumed.run_dir) == ("auto", str(finished_run))
    assert resumed.model_dump()["model"] == saved["model"]
    assert resumed.model_dump()["algo"] == saved["algo"]


def test_resume_from_a_given_checkpoint(empg: Empg, finished_run: Path, fake_loop: list[TrainConfig]) -> None:
    checkpoint = finished_run / "checkpoints" / "step-000001"
    empg("train", f"--resume={checkpoint}")
    assert (fake_loop[0].resume, fake_loop[0].run_dir) == (str(checkpoint), str(finished_run))


def test_resume_takes_a_group_from_a_folder_of_ones_own(
    empg: Empg, finished_run: Path, fake_loop: list[TrainConfig]
) -> None:
    Path("mine/logger").mkdir(parents=True)
    Path("mine/logger/quiet.yaml").write_text("defaults: [default]\ntrackers: []\n")
    empg("train", "--resume", finished_run, "--config-dir", "mine", "logger=quiet")
    assert fake_loop[0].logger.trackers == []
    assert "logger: has no option 'quiet'" in empg("train", "--resume", finished_run, "logger=quiet", code=2).stderr


def test_resume_takes_a_whole_group_from_conf_when_it_is_chosen(
    empg: Empg, finished_run: Path, fake_loop: list[TrainConfig]
) -> None:
    """What comes with the group may not change the run: trainer=paper is another learning rate, and more."""
    answer = empg("train", "--resume", finished_run, "trainer=paper", code=2).stderr
    assert "trainer.lr: cannot change when resuming (got 1e-06); the run has 0.0005" in answer
    empg("train", "--resume", finished_run, "logger=default")
    assert fake_loop[0].logger.trajectories == 32
    assert fake_loop[0].model.name == "tiny-scratch"


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["algo=grpo"], ["algo.name", "cannot change when resuming", "the run has empg"]),
        (["algo.group_size=4"], ["algo.group_size", "the run has"]),
        (["benchmark.max_steps=9"], ["benchmark.max_steps", "the run has"]),
        (["model=tiny"], ["model.name", "the run has tiny-scratch"]),
        (["seed=7"], ["seed", "cannot change when resuming", "the run has 0"]),
        (["rollout=window"], ["rollout.context", "the run has transcript"]),
        (["trainer.updates=1"], ["trainer.updates", "is below what is done", "has 2 updates behind it"]),
        (["experiment=smoke"], ["experiment", "one by one"]),
        (["run_dir=elsewhere"], ["run_dir=elsewhere", "is already said by --resume"]),
        (["-m", "seed=1,2"], ["--resume", "--multirun"]),
    ],
)
def test_resume_refuses_to_become_another_experiment(
    empg: Empg, finished_run: Path, words: list[str], answers: list[str]
) -> None:
    result = empg("train", "--resume", finished_run, *words, code=2)
    for answer in answers:
        assert answer in result.stderr


def test_resume_of_official_data_that_has_moved(
    empg: Empg, finished_run: Path, fake_loop: list[TrainConfig], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    saved = config(finished_run)
    saved["benchmark"]["data_dir"] = "/old/place"
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    assert "benchmark.data_dir: does not exist" in empg("train", "--resume", run, code=2).stderr
    empg("train", "--resume", run, f"benchmark.data_dir={tmp_path}")
    assert fake_loop[0].benchmark.data_dir == str(tmp_path)


def test_eval_plays_what_the_run_trained_on_and_prints_json(empg: Empg, finished_run: Path) -> None:
    result = empg("eval", f"run={finished_run}", "benchmark.split=valid_unseen", "benchmark.eval_tasks=3", "--json")
    shown = json.loads(result.stdout)
    assert (shown["split"], shown["total"]["n"]) == ("valid_unseen", 3)
    assert {kind["kind"] for kind in shown["kinds"]} <= {"pick_and_place_simple", "look_at_obj_in_light"}
    (folder,) = Path("runs/eval").iterdir()
    assert (folder / "eval.log").is_file()


def test_eval_of_a_checkpoint_finds_its_run(empg: Empg, finished_run: Path) -> None:
    result = empg("eval", f"run={finished_run}/checkpoints/step-000001", "benchmark.eval_tasks=2", "--json")
    assert json.loads(result.stdout)["policy"]["source"].endswith("step-000001")


def test_eval_of_the_expert_is_a_table(empg: Empg) -> None:
    result = empg("eval", "policy=expert", "benchmark.split=valid_unseen", "benchmark.eval_tasks=6")
    assert "100.0%" in result.stdout
    assert "task type" in result.stdout


def test_eval_sweeps_over_splits(empg: Empg) -> None:
    result = empg(
        "eval", "-m", "policy=expert", "benchmark.split=valid_seen,valid_unseen", "benchmark.eval_tasks=2", "--json"
    )
    assert [json.loads(line)["split"] for line in result.stdout.splitlines() if line.startswith("{")] == [
        "valid_seen",
        "valid_unseen",
    ]


@pytest.mark.launcher
@pytest.mark.slow
def test_joblib_workers_run_the_same_jobs(tmp_path: Path, small: Small) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    words = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", "run_dir=sweep", "trainer.updates=1"]
    done = subprocess.run(
        [sys.executable, "-m", "empg_cli", "train", *small, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seeds = [config(tmp_path / "sweep" / name)["seed"] for name in ("0-seed=0", "1-seed=1")]
    assert seeds == [0, 1]


def test_a_copied_run_can_be_evaluated(empg: Empg, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "moved")
    assert json.loads(empg("eval", "run=moved", "benchmark.eval_tasks=1", "--json").stdout)["total"]["n"] == 1


def test_a_run_in_use_is_refused_before_hydra_writes_there(empg: Empg, finished_run: Path) -> None:
    from empg_cli.owner import owning

    run = shutil.copytree(finished_run, Path("run"))
    with owning(run, "training"):
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        for words in (["run_dir=run"], ["run_dir=run", "resume=auto"], ["--resume", "run"]):
            answer = " ".join(empg("train", *words, code=2).stderr.split())
            assert f"run is in use by process {os.getpid()} on " in answer
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        empg("report", run, "--no-figures")
        with owning(run / "report", "reporting"):
            assert "run/report is in use" in empg("report", run, "--no-figures", code=2).stderr
    assert "run is the folder of a run" in empg("eval", "run=run", "run_dir=run", code=2).stderr
    assert "run already holds a run" in empg("train", "run_dir=run", code=2).stderr


def test_a_restart_is_said_with_the_run(empg: Empg, finished_run: Path, fake_loop: list[TrainConfig]) -> None:
    empg("train", "--resume", finished_run, "--restart")
    assert (fake_loop[0].resume, fake_loop[0].run_dir) == ("restart", str(finished_run))
    assert "--restart: is of --resume" in empg("train", "--restart", code=2).stderr
    checkpoint = finished_run / "checkpoints" / "step-000001"
    assert "--resume must name the run" in empg("train", "--resume", checkpoint, "--restart", code=2).stderr


def test_a_rewind_and_the_best_checkpoint_through_the_command_line(empg: Empg, finished_run: Path) -> None:
    run = shutil.copytree(finished_run, Path("run"))
    shown = empg("train", "--resume", run / "checkpoints" / "step-000001", "trainer.threads=2")
    assert "set aside           run/abandoned/1-after-update-000001  (updates 2 to 2)" in shown.stdout
    assert "best checkpoint     run/checkpoints/step-000002  (0.0%)" in shown.stdout
    assert [change["key"] for change in json.loads((run / "run.json").read_text())["changes"]] == ["trainer.threads"]
    again = empg("train", "--resume", run)
    assert "nothing to do: all 2 updates are done; trainer.updates=N goes on to N" in again.stderr
    for words, name in ((["checkpoint=best"], "2"), (["checkpoint=1"], "1"), (["checkpoint=last"], "2")):
        played = json.loads(empg("eval", "run=run", *words, "benchmark.eval_tasks=1", "--json").stdout)
        assert played["policy"]["source"].endswith(f"run/checkpoints/step-00000{name}")
    assert "checkpoint: is not read when run=null" in empg("eval", "checkpoint=best", code=2).stderr


def test_show_says_which_file_is_not_as_the_run_wrote_it(
    empg: Empg, finished_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(finished_run, Path("run"))
    (newest,) = (run / "trajectories").glob("*2-eval.jsonl")
    newest.write_text(newest.read_text().replace('"success"', '"sukzess"'))
    rows = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(rows.replace('"env/steps": ', '"env/steps": 1'))
    (run / "health.jsonl").write_text("{")
    empg("show", run)
    for name in ("metrics.jsonl is not what the run wrote", f"{newest.name} is not what the run wrote"):
        assert name in caplog.text
