"""A real training run through the command line: what it logs, where, and that the same seed logs the same."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from empg_cli.observe.catalogue import undefined
from empg_cli.runs.rows import read_rows, without_wall_clock

pytestmark = pytest.mark.slow


def train(run_dir: Path, home: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "empg_cli", "train", "experiment=smoke", "model=tiny-scratch"),
            *("trainer.warm_start.steps=2", "trainer.warm_start.keep_failed=true", f"run_dir={run_dir}", *overrides),
        ],
        env=kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,  # 20 seconds of work; a busy machine may take long over them
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run twice, with W&B and without."""
    home = tmp_path_factory.mktemp("home")
    first = train(home / "first", home, "logger.wandb.mode=auto")
    second = train(home / "second", home, "logger.wandb.mode=disabled")
    for done in (first, second):
        assert done.returncode == 0, done.stderr
    return home / "first", home / "second", first


def test_every_logged_metric_is_defined(runs):
    run_dir, _, _ = runs
    rows = read_rows(run_dir / "metrics.jsonl")
    assert list(rows) == [0, 1, 2]
    assert undefined(key for row in rows.values() for key in row) == []
    assert undefined(key for key in json.loads((run_dir / "summary.json").read_text()) if "/" in key) == []


def test_same_seed_same_rows_but_for_the_clock(runs):
    first, second, _ = runs

    def lines(run_dir):
        texts = (run_dir / "metrics.jsonl").read_text().splitlines()
        return [json.dumps(without_wall_clock(json.loads(text))) for text in texts]

    assert lines(first) == lines(second)
    assert "actor/pg_loss" in lines(first)[-1]


def test_csv_and_wandb_hold_the_rows_of_the_jsonl(runs):
    run_dir, second, done = runs
    rows = read_rows(run_dir / "metrics.jsonl")
    with (run_dir / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for line, (update, row) in zip(table, rows.items(), strict=True):
        assert int(line["update"]) == update
        for key, value in row.items():
            assert float(line[key]) == value
    (offline,) = run_dir.glob("wandb/offline-run-*")
    assert f"wandb sync {offline}" in done.stdout
    assert not (second / "wandb").exists()


def test_stdout_is_the_summary_and_stderr_plain_lines(runs):
    run_dir, _, done = runs
    assert f" eval run={run_dir.name}\n" in done.stdout  # relative to where it was started
    assert "last success rate" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "update 1/2 " in done.stderr
    assert "evaluation at update 2: success_rate=" in done.stderr
