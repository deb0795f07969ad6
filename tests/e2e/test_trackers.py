"""Each tracker, in a process of its own, read back with its own package: what it holds of a run that was killed and
went on, and what it does to a run when it fails."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.errors import UserError
from empg_cli.extras import EXTRAS
from empg_cli.observe import trackers
from empg_cli.observe.trackers import MODULES
from empg_cli.runs.run_file import read_run_file

PLAY = """
import json, logging, signal, sys
from pathlib import Path
from empg_cli import config
from empg_cli.observe.identity import RunIdentity
from empg_cli.observe.sinks import open_sinks
from empg_cli.runs.histograms import Histogram
from empg_cli.runs.run_file import update_run_file

logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s", stream=sys.stderr)
run_dir, words, start, end, resume, exit_code = json.loads(sys.argv[1])
cfg = config.load(words)
Path(run_dir).mkdir(parents=True, exist_ok=True)
update_run_file(Path(run_dir), commit="abc123", data={"name": "alfworld", "source": "generated", "digest": "d1"})
before = signal.getsignal(signal.SIGINT), sys.excepthook
fan = open_sinks(
    cfg.logger,
    Path(run_dir),
    run_config={**cfg.model_dump(), "hub": {"api_key": "sesame"}},
    identity=RunIdentity.of_seed("alfworld-empg", 3, tags=["alfworld", "empg"]),
    resume_from_update=start if resume else None,
)
fan.facts({"weights": {"digest": "w1"}})
for update in range(start, end):
    fan.histograms(update, {"hist/weight": Histogram(0.5, 1.5, (update, 2))})
    fan.log(update, {"train/update": update, "actor/kl_loss": update / 8 + (resume and 100 * (update < start))})
    if update == 3:
        fan.log(update, {"actor/entropy": float("nan"), "eval/pick (2)/score": 0.25})
fan.summary({"best/success_rate": 0.5, "last/success_rate": float("nan"), "config_hash": "c0ffee"})
fan.close(exit_code)
assert before == (signal.getsignal(signal.SIGINT), sys.excepthook), "a tracker has taken over Ctrl-C"
print(json.dumps([fan.pointers, len(fan)]))
"""
STEPS = list(range(12))
KL = [update / 8 for update in STEPS]


def need(tracker: str) -> None:
    for module in MODULES[tracker]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{tracker} is not installed (uv pip install {' '.join(EXTRAS[tracker].packages)})")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A machine on which nobody is logged in anywhere, and whose proxies lead nowhere."""
    home = tmp_path / "home"
    home.mkdir()
    named = ("WANDB", "MLFLOW", "TRACKIO", "SWANLAB", "XDG", "HF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(named)}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return kept | nowhere | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}


def play(
    environment: dict[str, str],
    run_dir: Path,
    words: list[str],
    *,
    start: int = 0,
    end: int = 12,
    resume: bool = False,
    exit_code: int = 0,
) -> tuple[dict[str, str], int, str]:
    """Where each sink writes, how many are still at work, and standard error."""
    arguments = json.dumps([str(run_dir), words, start, end, resume, exit_code])
    done = subprocess.run(
        [sys.executable, "-c", PLAY, arguments],
        env=environment,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pointers, left = json.loads(done.stdout)  # and nothing else: a tracker greets elsewhere
    return pointers, left, done.stderr


def killed_and_gone_on(environment: dict[str, str], run_dir: Path, tracker: str) -> dict[str, str]:
    """Rows 0 to 9, killed; rows 6 to 11 after the checkpoint of update 5."""
    words = [f"logger={tracker}", "logger.csv=false"]
    play(environment, run_dir, words, end=10, exit_code=137)
    pointers, left, _ = play(environment, run_dir, words, start=6, resume=True)
    assert left == 4
    return pointers


def test_tensorboard(environment: dict[str, str], tmp_path: Path) -> None:
    need("tensorboard")
    run_dir = tmp_path / "run"
    pointers = killed_and_gone_on(environment, run_dir, "tensorboard")
    accumulator: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    (file,) = (run_dir / "tensorboard").iterdir()
    assert str(file.parent) in pointers["tensorboard"]
    events = accumulator.EventAccumulator(str(file.parent), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("actor/kl_loss")] == list(zip(STEPS, KL, strict=True))
    assert [event.step for event in events.Histograms("hist/weight")] == STEPS
    histogram = events.Histograms("hist/weight")[4].histogram_value
    assert (list(histogram.bucket_limit), list(histogram.bucket), histogram.num) == ([1.0, 1.5], [4, 2], 6)

    def text(tag: str) -> str:
        return str(events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode())

    assert "| algo.credit.zeta | 0.05 |" in text("config")
    assert "| facts.data.digest | d1 |" in text("config")
    assert "| hub.api_key | *** |" in text("config")
    assert "| weights.digest | w1 |" in text("facts")
    assert "| best/success_rate | 0.5 |" in text("summary")
    assert b"sesame" not in file.read_bytes()


def test_mlflow(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mlflow")
    run_dir = tmp_path / "run"
    pointers = killed_and_gone_on(environment, run_dir, "mlflow")
    assert f"sqlite:///{run_dir}/mlflow.db" in pointers["mlflow"]
    assert not (Path(environment["HOME"]) / "mlruns").exists()
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    client = importlib.import_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{run_dir}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("empg").experiment_id])
    history = client.get_metric_history(run.info.run_id, "actor/kl_loss")
    assert sorted((metric.step, metric.value) for metric in history) == list(zip(STEPS, KL, strict=True))
    assert (run.info.run_name, run.info.status) == ("alfworld-empg-s3", "FINISHED")
    assert (run.data.params["algo.credit.zeta"], run.data.params["hub.api_key"]) == ("0.05", "***")
    tags = run.data.tags
    assert (tags["group"], tags["facts.data.digest"], tags["facts.weights.digest"]) == ("alfworld-empg", "d1", "w1")
    assert tags["summary.config_hash"] == "c0ffee"
    ends = client.get_metric_history(run.info.run_id, "summary/best/success_rate")
    assert {(end.step, end.value) for end in ends} == {(9, 0.5), (11, 0.5)}
    assert "summary/last/success_rate" not in run.data.metrics
    assert run.data.metrics["eval/pick _2_/score"] == 0.25
    assert read_run_file(run_dir)["trackers"]["mlflow"]["run"] == run.info.run_id


READ_TRACKIO = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage as S
print(json.dumps([[name, S.get_logs("empg", name), S.get_run_config("empg", name)] for name in S.get_runs("empg")]))
"""


def test_trackio(environment: dict[str, str], tmp_path: Path) -> None:
    need("trackio")
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio")}
    pointers = killed_and_gone_on(environment, tmp_path / "run", "trackio")
    assert pointers["trackio"].endswith("trackio show --project empg")
    play(environment, tmp_path / "other", ["logger=trackio"], end=2)  # the same name, another run
    done = subprocess.run(
        [sys.executable, "-c", READ_TRACKIO], env=environment, capture_output=True, text=True, check=True
    )
    runs = {name: (rows, settings) for name, rows, settings in json.loads(done.stdout)}
    assert len(runs) == 2
    rows, settings = runs[read_run_file(tmp_path / "run")["trackers"]["trackio"]]
    found = [(row["step"], row["actor/kl_loss"]) for row in rows if "actor/kl_loss" in row]
    assert found == list(zip(STEPS, KL, strict=True))
    assert (settings["algo"]["credit"]["zeta"], settings["hub"]["api_key"]) == (0.05, "***")
    assert settings["facts"]["data"]["digest"] == "d1"
    assert settings["_Group"] == "alfworld-empg"


@pytest.mark.parametrize("tracker", ["trackio", "mlflow", "swanlab"])
def test_a_copy_that_goes_on_leaves_the_run_alone_and_a_moved_folder_goes_on(
    tracker: str, environment: dict[str, str], tmp_path: Path
) -> None:
    need(tracker)
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio")}
    words = [f"logger={tracker}", "logger.csv=false"]
    play(environment, tmp_path / "run", words, end=6)
    known = read_run_file(tmp_path / "run")["trackers"][tracker]
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    _, _, stderr = play(environment, copy, words, start=3, end=5, resume=True)
    assert "is a copy of the run in" in stderr
    own = read_run_file(copy)["trackers"][tracker]
    assert own != known
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    _, left, stderr = play(environment, moved, words, start=6, end=8, resume=True)
    assert left == 4 and "is a copy" not in stderr
    assert read_run_file(moved)["trackers"][tracker] == known
    if tracker == "trackio":
        found = subprocess.run(
            [sys.executable, "-c", READ_TRACKIO], env=environment, capture_output=True, text=True, check=True
        )
        steps = {
            name: [row["step"] for row in rows if "train/update" in row] for name, rows, _ in json.loads(found.stdout)
        }
        assert steps == {known: list(range(8)), own: list(range(5))}


def test_swanlab(environment: dict[str, str], tmp_path: Path) -> None:
    need("swanlab")
    run_dir = tmp_path / "run"
    pointers = killed_and_gone_on(environment, run_dir, "swanlab")
    newest = sorted((run_dir / "swanlog").glob("run-*"))[-1]
    assert str(newest) in pointers["swanlab"]
    assert " sync " in pointers["swanlab"]
    (log,) = newest.glob("*.swanlab")
    reader = importlib.import_module("swanlab.sdk.internal.core_python.store").DataStoreReader()
    record: Any = importlib.import_module("swanlab.proto.swanlab.record.v1.record_pb2").Record
    reader.open(log)
    records = [record.FromString(data) for data in iter(reader.scan, None)]
    found = [
        (one.scalar.step, one.scalar.value.number)
        for one in records
        if one.HasField("scalar") and one.scalar.key == "actor/kl_loss"
    ]
    assert found == list(zip(STEPS, KL, strict=True))
    number = read_run_file(run_dir)["trackers"]["swanlab"]
    assert log.name == f"run-{number}.swanlab"
    settings = (newest / "files" / "config.yaml").read_text()
    assert "sesame" not in settings
    assert "d1" in settings
    assert "w1" in settings


def test_one_that_is_not_installed_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "MODULES", {"mlflow": ("no_such_module",)})
    trackers.refuse_missing(["wandb", "tensorboard"])
    with pytest.raises(UserError, match=r"names mlflow, which is not installed: .*install.*\[mlflow\]"):
        trackers.refuse_missing(["wandb", "mlflow"])


@pytest.mark.slow
def test_a_run_with_all_of_them_goes_on_for_longer(environment: dict[str, str], tmp_path: Path) -> None:
    """Those that are installed, through the command line."""
    there = ["wandb", *(name for name, needed in MODULES.items() if all(map(importlib.util.find_spec, needed)))]
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio"), "WANDB_X_DISABLE_STATS": "true"}

    def empg(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "empg_cli", "train", *words],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "logging is off" not in done.stderr
        assert done.stdout.startswith("empg on alfworld (generated data)"), done.stdout

    small = ("experiment=smoke", "model=tiny-scratch", "trainer.warm_start.steps=2")
    small += ("trainer.warm_start.keep_failed=true", "benchmark.eval_tasks=3", "benchmark.max_steps=3")
    empg(*small, f"logger.trackers=[{','.join(there)}]", "trainer.updates=1", "run_dir=run")
    before = read_run_file(tmp_path / "run")["trackers"]
    empg("--resume", "run", "trainer.updates=2")
    assert read_run_file(tmp_path / "run")["trackers"] == before
    assert set(before) == {"name", "group", "place", *there} - {"wandb", "tensorboard"}


def spoil_tensorboard(run_dir: Path, environment: dict[str, str]) -> None:
    (run_dir / "tensorboard").write_text("a file where a folder should be")


def spoil_mlflow(run_dir: Path, environment: dict[str, str]) -> None:
    environment["MLFLOW_TRACKING_URI"] = "http://me:sesame@127.0.0.1:9"


def spoil_trackio(run_dir: Path, environment: dict[str, str]) -> None:
    (run_dir / "taken").write_text("")
    environment["TRACKIO_DIR"] = str(run_dir / "taken" / "below")


def spoil_swanlab(run_dir: Path, environment: dict[str, str]) -> None:
    environment["SWANLAB_MODE"] = "nonsense"


@pytest.mark.parametrize("spoil", [spoil_tensorboard, spoil_mlflow, spoil_trackio, spoil_swanlab])
def test_one_that_cannot_start_leaves_the_run_and_the_others(
    spoil: Callable[[Path, dict[str, str]], None], environment: dict[str, str], tmp_path: Path
) -> None:
    tracker = spoil.__name__.removeprefix("spoil_")
    need(tracker)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    spoil(run_dir, environment)
    _, left, stderr = play(environment, run_dir, [f"logger={tracker}"], end=3)
    assert left == 4  # metrics.jsonl, summary.json, histograms.jsonl, metrics.csv
    assert f"WARNING {tracker} logging is off (it could not start" in stderr
    assert "sesame" not in stderr
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 3
