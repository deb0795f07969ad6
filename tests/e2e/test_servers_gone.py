"""A search engine or a judge that dies: the run stops before it trains on that, says who it was, and goes on later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from empg_cli.runs.rows import read_rows, without_wall_clock
from empg_cli.services import http as service
from tests.support.server import FakeServer, Reply, Request

Empg = Callable[..., Result]
WORLD = ("benchmark.world.scale=0.1", "benchmark.world.train_questions=40", "benchmark.world.test_questions=2")
SIZES = ("trainer.updates=2", "trainer.tasks_per_update=2", "algo.group_size=2", "trainer.minibatches=1")
REST = ("trainer.eval_every=1", "trainer.eval_before=false", "trainer.checkpoint_every=0", "benchmark.eval_tasks=3")
QUIET = ("logger.console=plain", "logger.wandb.mode=disabled")


class Engine:
    """Answers every query with one page, until it is to be gone."""

    def __init__(self) -> None:
        self.is_gone: Callable[[int], bool] = lambda searches: False
        """Told how many searches there were."""
        self.searches = 0

    def __call__(self, request: Request) -> Reply:
        if request.path == "/health":
            return Reply({}, 404)
        self.searches += 1
        if self.is_gone(self.searches):
            return Reply({"detail": "the disk is gone"}, 500)
        row = [{"document": {"id": "1", "contents": '"Somewhere"\nNothing of interest.'}, "score": 1.0}]
        return Reply({"result": [row for _ in request.json["queries"]]})

    def begins(self, is_gone: Callable[[int], bool] = lambda searches: False) -> None:
        self.searches, self.is_gone = 0, is_gone


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(service, "FIRST_WAIT_S", 0.001)
    return Engine()


@pytest.fixture
def server(engine: Engine) -> Iterator[FakeServer]:
    fake = FakeServer(engine)
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"benchmark.cache_dir={tmp_path_factory.mktemp('world')}"


def over(server: FakeServer, cache: str) -> tuple[str, ...]:
    engine = ("retrieval@benchmark.retrieval=http", f"benchmark.retrieval.urls=[{server.url}]")
    return ("benchmark=deepsearch", *WORLD, cache, "benchmark.max_steps=3", *engine, *QUIET)


def rows(run: str) -> list[dict[str, Any]]:
    return [without_wall_clock(row) for row in read_rows(Path(run) / "metrics.jsonl").values()]


def files(run: str, below: str) -> list[str]:
    return sorted(path.name for path in (Path(run) / below).glob("*"))


def test_nothing_trains_on_silence_and_the_run_goes_on_as_one_without_a_break(
    empg: Empg, engine: Engine, server: FakeServer, cache: str
) -> None:
    words = ("train", *over(server, cache), *SIZES, *REST)
    empg(*words, "run_dir=straight")
    evaluated, trained = Path("rollout/evaluations/update-000001.json"), Path("evaluation/trajectories")
    moments: dict[str, tuple[int, Callable[[int], bool]]] = {
        "rollout": (1, lambda searches: evaluated.exists()),  # the second one
        "evaluation": (2, lambda searches: (trained / "update-000002-train.jsonl").exists()),  # the last one
    }
    for run, (update, is_gone) in moments.items():
        engine.begins(is_gone)
        done = empg(*words, f"run_dir={run}", "trainer.health.max_failed_calls=0.0", code=3)
        said = " ".join(done.stderr.split())
        assert f"stopped after update {update}:" in said and "Traceback" not in done.stderr
        assert f"calls of the /retrieve server at {server.url} stayed without an answer" in said
        assert "the disk is gone" in said
        assert f"good checkpoint is {run}/checkpoints/step-00000{update}" in said and f"train --resume {run}" in said
        assert files(run, "checkpoints")[-1] == f"step-00000{update}"
        assert files(run, "evaluations") == ["update-000001.json"] and len(rows(run)) == 1
        assert json.loads((Path(run) / "summary.json").read_text())["exit_code"] == 3
        engine.begins()
        empg("train", "--resume", run)
        assert rows(run) == rows("straight")
        assert files(run, "evaluations") == files("straight", "evaluations")


def test_an_evaluation_without_answers_is_not_recorded(
    empg: Empg, engine: Engine, server: FakeServer, cache: str
) -> None:
    words = ("eval", "model=tiny", *over(server, cache), "benchmark.eval_tasks=4", "run_dir=out")
    engine.begins(lambda searches: searches > 1)  # the first is the check before the first episode
    done = empg(*words, code=2)
    assert server.url in done.stderr and "stayed without an answer" in done.stderr
    assert not Path("out/evaluation.json").exists()
    engine.begins(lambda searches: searches > 1)
    empg(*words, "trainer.health.max_failed_calls=1", "run_dir=all-the-same")
    assert json.loads(Path("all-the-same/evaluation.json").read_text())["total"]["n"] == 4


def test_a_judge_that_dies_is_named(empg: Empg, engine: Engine, server: FakeServer, cache: str) -> None:
    engine.begins(lambda searches: True)
    judge = ("benchmark.reward=judge", "+judge@benchmark.judge=openai", "benchmark.judge.model=m")
    words = ("benchmark=deepsearch", *WORLD, cache, *judge, f"benchmark.judge.base_url={server.url}/v1")
    done = empg("train", *words, *SIZES, *REST, *QUIET, "run_dir=run", code=3)
    assert f"calls of the judge at {server.url}/v1 stayed without an answer" in " ".join(done.stderr.split())
    assert not Path("run/checkpoints").exists() and not Path("run/evaluations").exists()
