"""Runs of rollout.engine=vllm over a fake of its server: the whole loop, and what becomes of it when servers fail."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from empg_cli.config import load
from empg_cli.loop import train
from empg_cli.services import http
from tests.support.same_rows import assert_same_rows, rows_of
from tests.support.served import GENERATE, PARITY, policy_of, saved, shift
from tests.support.tiny import SCRATCH, tiny_config, tiny_policy
from tests.support.token_server import TokenServer, token_server

Empg = Callable[..., Result]
UPDATES = 3
LIMIT_S = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights than any run's."""
    policy = policy_of()
    shift(policy, 77)
    return saved(policy, tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[TokenServer]:
    with token_server(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.001)


def words(server: TokenServer, *more: str) -> list[str]:
    return [
        *SCRATCH,
        "algo=grpo",
        "algo.group_size=3",
        f"trainer.updates={UPDATES}",
        "trainer.tasks_per_update=3",
        "trainer.lr=1e-3",
        "trainer.threads=1",
        "trainer.device=cpu",
        "trainer.old_logprobs=recompute",
        "trainer.eval_before=false",
        "trainer.health.preflight=off",
        "benchmark.max_steps=4",
        "benchmark.eval_tasks=2",
        "rollout.max_new_tokens=5",
        "rollout.engine=vllm",
        f"rollout.vllm.urls=[{server.url}]",
        "rollout.vllm.timeout_s=20",
        "rollout.vllm.start_timeout_s=20",
        "logger.console=quiet",
        "logger.wandb.mode=disabled",
        *more,
    ]


def run_of(server: TokenServer, place: Path, *more: str) -> Path:
    train(load(words(server, *more)), place)
    return place


@pytest.fixture(scope="module")
def straight(server: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(server, tmp_path_factory.mktemp("runs") / "straight")


@pytest.fixture(scope="module")
def empg_run(server: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(server, tmp_path_factory.mktemp("runs") / "empg", "algo=empg")


def test_servers_sample_from_the_policy_that_learns_at_every_update(empg_run: Path, server: TokenServer):
    rows = rows_of(empg_run)
    assert [row["update"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["rollout/probe_gap"] < PARITY
        assert all(row[f"rollout/logprob_gap/{name}"] < PARITY for name in ("max", "mean", "kl"))
        assert row["rollout/logprob_gap/ess"] == pytest.approx(1, abs=PARITY)
        assert row["actor/grad_norm"] > 0 and row["empg/weight/max"] > 1
        assert "timing_s/publish" in row
    assert [body["weight_version"] for body in server.record.bodies["/finish_weight_update"]][-4:] == list("0123")


def test_steps_say_which_policy_took_them(empg_run: Path):
    (kept,) = empg_run.rglob(f"update-{UPDATES:06d}-train.jsonl")
    episodes = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(episodes) == 9
    assert {step["policy_version"] for one in episodes for step in one["steps"]} == {UPDATES - 1}


def test_cut_importance_weights_change_nothing_on_policy(straight: Path, server: TokenServer, tmp_path: Path):
    cut = run_of(server, tmp_path / "cut", "algo.loss.importance_cap=2.0")
    for row in rows_of(cut):
        assert row["rollout/importance/mean"] == pytest.approx(1.0, abs=1e-5)
    of_machine = ("timing_s/", "perf/", "rollout/importance", "rollout/probe", "rollout/logprob")
    for one, other in zip(rows_of(straight), rows_of(cut), strict=True):
        for name in (name for name in one if not name.startswith(of_machine)):
            assert other[name] == pytest.approx(one[name], abs=1e-6, rel=1e-5), name


def test_a_server_that_is_killed_and_comes_back_costs_no_update(straight: Path, server: TokenServer, tmp_path: Path):
    came, left = server.record.came, [30]

    def counted(path: str, body: Any) -> None:
        came(path, body)
        left[0] -= path == GENERATE
        if left[0] == 0:
            left[0] = -1
            threading.Thread(target=server.restart).start()

    server.record.came = counted  # type: ignore[method-assign]
    try:
        disturbed = run_of(server, tmp_path / "disturbed")
    finally:
        server.record.came = came  # type: ignore[method-assign]
    assert left[0] < 0, "it was killed"
    assert_same_rows(straight, disturbed)


def test_two_ranks_with_one_server_are_one_rank(straight: Path, server: TokenServer, tmp_path: Path):
    command = [sys.executable, "-m", "tests.support.served_ranks", str(tmp_path)]
    subprocess.run([*command, *words(server)], check=True, timeout=LIMIT_S,
                   cwd=Path(__file__).parents[2])  # fmt: skip
    assert_same_rows(straight, tmp_path / "run")


def test_a_run_is_evaluated_on_its_server(empg: Empg, empg_run: Path, server: TokenServer):
    server.record.counts.clear()
    empg("eval", f"run={empg_run}", "run_dir=out")
    assert server.record.counts["/update_weights"] == 1 and server.record.counts[GENERATE] > 3
    assert json.loads(Path("out/evaluation.json").read_text())["total"]["n"] == 2
    assert server.label == str(UPDATES), "the weights of the run's last update"


def test_a_server_that_keeps_old_weights_stops_the_run_with_what_stands(empg: Empg, tmp_path: Path):
    policy = tiny_policy(tiny_config())
    with token_server(saved(policy, tmp_path / "model")) as stale:
        stale.faults.ignore_updates = True
        done = empg("train", *words(stale, "run_dir=run", "rollout.vllm.max_gap=1e-5"), code=3)
        said = " ".join(done.stderr.split())
        assert "stopped after update 1" in said and "does not sample from the policy that learns" in said
        assert "rollout.vllm.max_gap: 1e-05" in said and "Traceback" not in done.stderr
        assert "good checkpoint is run/checkpoints/step-000001" in said and "train --resume run" in said
        assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-000001"]


def test_a_run_that_a_server_has_stopped_goes_on(empg: Empg, tmp_path: Path):
    policy = tiny_policy(tiny_config())
    with token_server(saved(policy, tmp_path / "model")) as stale:
        stale.faults.ignore_updates = True
        empg("train", *words(stale, "run_dir=run", "rollout.vllm.max_gap=1e-5"), code=3)
        stale.faults.ignore_updates = False
        empg("train", "--resume", "run")
    assert [row["update"] for row in rows_of(Path("run"))] == [1, 2, 3]


def test_a_server_that_is_gone_for_good_stops_the_run(empg: Empg, folder: Path):
    with token_server(folder) as gone:
        pass
    done = empg("train", *words(gone, "run_dir=run", "rollout.vllm.start_timeout_s=0.5"), code=2)
    assert f"no server of vLLM answers at {gone.url} after 0.5 s" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
