"""`empg eval` of a Hugging Face folder: several seeds, temperatures and samples in one command."""

from __future__ import annotations

import json
import signal
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


def test_passes_that_are_done_are_not_played_again(
    empg: Empg, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third of four passes; the command that is said goes on, and the result is the straight one."""
    from empg_cli.cli.commands import evaluate
    from empg_cli.evaluation import run_eval

    options = ("seeds=4", "rollout.eval_temperature=1.0")
    straight = json.loads(empg("eval", *words, *options, "run_dir=straight", "--json").stdout)
    play, played = run_eval._Model.play, []

    def play_and_note(self: Any, which: Any, progress: Any) -> Any:
        played.append(which.seed)
        if played == [0, 1, 2]:
            signal.raise_signal(signal.SIGTERM)
        return play(self, which, progress)

    monkeypatch.setattr(run_eval._Model, "play", play_and_note)
    monkeypatch.setattr(evaluate, "COMMAND_LINE", ["empg", "eval", *options])
    stopped = empg("eval", *words, *options, code=143)
    (folder,) = Path("runs/eval").iterdir()
    assert (
        f"To go on:  empg eval seeds=4 rollout.eval_temperature=1.0 run_dir=runs/eval/{folder.name}\n" in stopped.stderr
    )
    assert len(list((folder / "passes").iterdir())) == 2
    again = json.loads(empg("eval", *words, *options, f"run_dir={folder}", "--json").stdout)
    assert played == [0, 1, 2, 2, 3]
    assert again == straight
    more = json.loads(empg("eval", *words, "seeds=5", *options[1:], f"run_dir={folder}", "--json").stdout)
    assert (played[5:], more["temperatures"][0]["seeds"]) == ([4], [0, 1, 2, 3, 4])


def test_passes_of_another_evaluation_are_refused(empg: Empg, words: tuple[str, ...]) -> None:
    options = ("seeds=2", "rollout.eval_temperature=1.0", "run_dir=many")
    empg("eval", *words, *options)
    refused = empg("eval", *words, *options, "rollout.max_new_tokens=3", code=2).stderr
    assert "is a pass of another evaluation (settings" in " ".join(refused.split())
    empg("eval", *words, *options, "rollout.max_concurrent=1", "logger.console=plain")  # how fast, not what
    path = Path("many/passes/temperature-1-seed-1.json")
    path.write_text("{")
    refused = empg("eval", *words, *options, code=2).stderr
    assert "not a pass of this empg" in " ".join(refused.split())
