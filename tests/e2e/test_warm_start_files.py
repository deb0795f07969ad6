"""`trainer.warm_start.file` as in docs/warm-start.md: from episodes that were kept to a run that imitated them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Empg = Callable[..., Result]
KEPT = "kept/trajectories/update-000000-eval.jsonl"


def test_episodes_of_an_evaluation_are_imitated(
    empg: Empg, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    games = ("benchmark.max_steps=40", "benchmark.train_games=16")
    games = (*games, "benchmark.task_types=[pick_and_place_simple,look_at_obj_in_light]")
    empg(
        "eval",
        "policy=expert",
        "benchmark.split=train",
        "benchmark.eval_tasks=5",
        *games,
        "logger.trajectories=5",
        "run_dir=kept",
    )
    words = (*small, f"trainer.warm_start.file={KEPT}", "trainer.warm_start.batch_size=2", *games)
    words = (*words, "trainer.warm_start.epochs=8", "trainer.warm_start.held_out=0.3", "trainer.updates=1")
    empg("train", *words, "run_dir=run")
    rows = [json.loads(line) for line in Path("run/warm_start.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "loss" in row]
    before, after = (row for row in rows if "held_out_loss" in row)
    assert [row["step"] for row in trained] == list(range(1, 13))  # 8 passes over 3 of 5, in pairs
    assert (before["step"], after["step"]) == (0, 12)
    assert after["held_out_loss"] < before["held_out_loss"] - 0.1
    assert json.loads(Path("run/run.json").read_text())["demonstrations"]
    assert not Path("run/warm-start.pt").exists()
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 2
    other = Path("other.jsonl")
    other.write_text(Path(KEPT).read_text().splitlines(keepends=True)[0])
    refused = empg("train", "--resume", "run", "trainer.updates=2", f"trainer.warm_start.file={other}", code=2)
    assert "is not the file that the warm start imitated" in refused.stderr


def test_a_wrong_line_ends_the_command_before_there_is_a_folder(empg: Empg) -> None:
    Path("demos.jsonl").write_text('{"messages": []}\n')
    result = empg("train", "trainer.warm_start.file=demos.jsonl", "run_dir=run", code=2)
    assert "demos.jsonl, line 1: messages: must be a list of messages; mend that line" in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "words", [("train", "--multirun", "seed=0,1"), ("ablate", "seeds=2")], ids=lambda words: words[0]
)
def test_nor_does_a_sweep_or_a_study_begin(words: tuple[str, ...], empg: Empg) -> None:
    Path("demos.jsonl").write_text('{"messages": []}\n')
    result = empg(*words, "trainer.warm_start.file=demos.jsonl", "run_dir=runs", code=2)
    assert "demos.jsonl, line 1: messages: must be a list of messages" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["demos.jsonl"]


def test_conversations_for_a_model_without_a_template_are_refused_as_early(empg: Empg) -> None:
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    Path("demos.jsonl").write_text(json.dumps({"messages": talk}) + "\n")
    result = empg("train", "model=tiny", "trainer.warm_start.file=demos.jsonl", "run_dir=run", code=2)
    assert "model.prompt=compact has none" in result.stderr
    assert not Path("run").exists()
