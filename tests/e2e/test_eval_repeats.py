"""`empg eval` of a Hugging Face folder: several seeds, temperatures and samples in one command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.support.chat import save_chat_model

Empg = Callable[..., Result]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A random chat model in a folder of its own, on three small games; no run has trained it."""
    model = save_chat_model(tmp_path_factory.mktemp("model"))
    return (
        *("model=qwen2.5-0.5b", f"model.path={model}", "model.dtype=float32", "trainer.threads=1"),
        *("rollout.max_new_tokens=4", "benchmark.max_steps=2", "benchmark.eval_tasks=3", "benchmark.train_games=3"),
        "logger.console=quiet",
    )


def actions(folder: str) -> list[list[str]]:
    lines = (Path(folder) / "trajectories" / "update-000000-eval.jsonl").read_text().splitlines()
    return [[step["action"] for step in json.loads(line)["steps"]] for line in lines]


def test_passes_are_files_of_their_own_and_the_summary_names_them(empg: Empg, words: tuple[str, ...]) -> None:
    options = ("seeds=2", "temperatures=[0,1]", "samples=2")
    shown: dict[str, Any] = json.loads(empg("eval", *words, *options, "run_dir=many", "--json").stdout)
    greedy, sampled = shown["temperatures"]
    assert (greedy["seeds"], greedy["samples"]) == ([0], 1)
    assert (sampled["seeds"], sampled["samples"]) == ([0, 1], 2)
    assert [row["kind"] for row in sampled["pass_at_k"]][-1] == "all"
    assert shown["data"]["digest"] and shown["data"]["source"] == "generated"
    assert Path(shown["policy"]["source"]).is_dir()
    saved = json.loads(Path("many/evaluation.json").read_text())
    assert saved["passes"] == ["temperature-0-seed-0"] + [
        f"temperature-1-seed-{seed}{sample}" for seed in (0, 1) for sample in ("", "-sample-1")
    ]
    assert sorted(saved["passes"]) == sorted(path.stem for path in Path("many/passes").iterdir())
    one = json.loads(Path("many/passes/temperature-1-seed-1-sample-1.json").read_text())
    assert (one["seed"], one["sample"], one["temperature"], len(one["tasks"])) == (1, 1, 1.0, 3)
    compared = empg(
        *("eval", "--compare", "many/passes/temperature-0-seed-0.json"),
        *("many/passes/temperature-1-seed-0.json", "--json"),
    )
    assert json.loads(compared.stdout)["total"]["n"] == 3


def test_a_pass_is_the_evaluation_that_one_seed_alone_makes(empg: Empg, words: tuple[str, ...]) -> None:
    for folder, options in {
        "alone": ("seed=1", "rollout.eval_temperature=1.0"),
        "first": ("seeds=[1,0]", "temperatures=[1.0]"),
        "other": ("seeds=[0,1]", "temperatures=[1.0]"),
    }.items():
        empg("eval", *words, *options, f"run_dir={folder}")
    assert actions("alone") == actions("first") != actions("other")


def test_the_tables_are_printed(empg: Empg, words: tuple[str, ...]) -> None:
    shown = empg("eval", *words, "seeds=2", "samples=2", "rollout.eval_temperature=1.0").stdout
    for text in (
        "valid_seen, temperature 1",
        "by seed:",
        "pass@k:",
        "k = 4",
        "arXiv 2107.03374",
        "t interval over seeds",
    ):
        assert text in shown
