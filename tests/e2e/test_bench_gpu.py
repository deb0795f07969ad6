"""scripts/bench/gpu.py on this machine with a small model: what a lent GPU's minutes will be spent on works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
PARTS = ("rollout 0.5b", "update 0.5b", "alfworld 0.5b")
"""Of each kind one; with --small those of 1.5b are the same once more."""
COMMAND = [sys.executable, str(BENCH / "gpu.py"), "--device", "cpu", "--small"]


def lines_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    command = [*COMMAND, "--patience", "10", "--only", *PARTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return lines_of(done.stdout)


def test_every_part_leaves_its_lines(measured: list[dict[str, Any]]) -> None:
    facts, *lines = measured
    assert facts["part"] == "facts" and "torch" in facts["versions"]
    count: dict[str, int] = {}
    for line in lines:
        count[line["part"]] = count.get(line["part"], 0) + 1
    assert count == dict.fromkeys(PARTS, 2)


def test_the_lines_agree_with_themselves(measured: list[dict[str, Any]]) -> None:
    for line in measured[1:]:
        match line["part"].split()[0]:
            case "rollout":
                assert line["tokens_per_s"] == pytest.approx(line["sampled"] / line["seconds"])
            case "update":
                assert line["tokens_per_s"] == pytest.approx(line["tokens"] / line["seconds"])
                assert line["of_gemm"] == pytest.approx(line["model_tflops"] / line["gemm_tflops"])
            case "alfworld":
                # 2 episodes of 2 steps; random weights do not end an answer before its 4 tokens.
                assert (line["episodes"], line["sampled"]) == (2, 2 * 2 * 4)
    ours, generate = [line for line in measured if line["part"] == "rollout 0.5b"]
    assert ours["sampled"] == generate["sampled"], "both sides sample as many tokens"
    plain, checkpointed = [line for line in measured if line["part"] == "update 0.5b"]
    assert (plain["checkpointing"], checkpointed["checkpointing"]) == (False, True)
    assert plain["tokens"] == checkpointed["tokens"]


def test_they_become_the_tables_of_the_page(measured: list[dict[str, Any]], tmp_path: Path) -> None:
    cut = {"part": "vllm 0.5b", "error": "cut after 9 s", "part_s": 9.0}
    (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in [*measured, cut]))
    command = [*COMMAND, "--read", str(tmp_path / "lines"), "--json", str(tmp_path / "gpu.json")]
    subprocess.run(command, check=True, timeout=120)
    rollouts, updates, alfworld = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert [row[:2] for row in rollouts["rows"]] == [["rollout 0.5b", side] for side in ("ours", "generate")]
    assert rollouts["notes"] == ["vllm 0.5b: cut after 9 s."]
    assert (len(updates["rows"]), len(alfworld["rows"])) == (2, 2)
    assert [row[2] for row in updates["rows"]] == ["off", "on"]


def test_a_slow_part_is_cut_and_said_and_the_others_are_not_begun_late() -> None:
    done = subprocess.run(
        [*COMMAND, "--only", "update 0.5b", "alfworld 0.5b", "--seconds", "0.5"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    _, update, alfworld = lines_of(done.stdout)
    assert done.returncode == 1
    assert (update["part"], update["error"]) == ("update 0.5b", "cut after 0 s")
    assert alfworld["error"] == "not begun: the 0.5 s of all parts are over"
