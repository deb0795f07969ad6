"""What is kept of trajectories, and that its numbers are those of the loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from empg_cli.agents.messages import MessageCodec
from empg_cli.algorithms.assemble import compute_credit, credit_parts
from empg_cli.config import load
from empg_cli.model.batch import make_batch
from empg_cli.runs.trajectories import drop_trajectories, save_trajectories, text_with_special_tokens
from empg_cli.types import Step, Task, Trajectory
from tests.support.chat import chat_tokenizer


def trajectory(group: int, index: int, entropies: list[list[float]], reward: float) -> Trajectory:
    steps = [
        Step([1], [2] * len(values), [-1.0] * len(values), values, action=f"a{number}", observation=f"o{number}")
        for number, values in enumerate(entropies)
    ]
    steps[-1].reward = reward
    return Trajectory(Task(f"t{group}", "pick", "train"), group, index, steps, success=reward > 0)


@pytest.fixture
def played() -> list[Trajectory]:
    return [
        trajectory(0, 0, [[0.2, 0.4], [1.0]], 10.0),
        trajectory(0, 1, [[0.5], [0.9], [2.0, 1.0]], 0.0),
        trajectory(1, 0, [[0.1]], 10.0),
        trajectory(1, 1, [[0.7], [0.3]], 0.0),
    ]


def lines(run: Path, name: str) -> list[dict[str, list[dict[str, float]]]]:
    return [json.loads(line) for line in (run / "trajectories" / name).read_text().splitlines()]


@pytest.mark.parametrize(
    "preset",
    [
        "empg",
        "grpo",
        "dapo_empg",
        "gigpo",
        "gigpo_empg",
        "hgpo",
        "graphgpo",
        "g2po",
        "turn_credit",
        "rloo",
        "reinforce_pp",
        "aem",
    ],
)
def test_explained_credit_is_the_credit_of_the_loss(preset: str, played: list[Trajectory]) -> None:
    algo = load([f"algo={preset}"]).algo
    batch = make_batch(played, append_only=True)
    parts, _ = credit_parts(algo, batch)
    assert parts.credit_S.equal(compute_credit(algo, batch)[0])
    if algo.credit.kind == "empg":
        assert parts.weight_S is not None and parts.clarity_S is not None
        credit_S = parts.advantage_S * parts.weight_S + algo.credit.zeta * parts.clarity_S
        centred_S = credit_S - credit_S.mean() if algo.credit.center else credit_S
        assert parts.credit_S.tolist() == pytest.approx(centred_S.tolist(), abs=1e-6)
    else:
        assert parts.weight_S is None
        assert parts.credit_S.equal(parts.advantage_S)


def test_every_step_has_its_own_row_of_credit(tmp_path: Path, played: list[Trajectory]) -> None:
    parts, _ = credit_parts(load(["algo=empg"]).algo, make_batch(played, append_only=True))
    save_trajectories(tmp_path, 7, "train", played[:3], parts)
    records = lines(tmp_path, "update-000007-train.jsonl")
    credit = [step["credit"] for record in records for step in record["steps"]]
    assert credit == pytest.approx(parts.credit_S[:6].tolist(), rel=1e-5)  # 2 + 3 + 1 steps
    assert records[0]["steps"][0]["entropy"] == pytest.approx(0.3)  # (0.2 + 0.4) / 2
    assert [step["action"] for step in records[1]["steps"]] == ["a0", "a1", "a2"]
    assert records[1]["steps"][2]["f"] == 0.0  # the last step of a trajectory leads nowhere


def test_evaluation_has_entropies_and_no_credit(tmp_path: Path, played: list[Trajectory]) -> None:
    save_trajectories(tmp_path, 0, "eval", played)
    step = lines(tmp_path, "update-000000-eval.jsonl")[0]["steps"][0]
    assert step["entropy"] == pytest.approx(0.3)
    assert "credit" not in step


def test_the_texts_of_a_step_are_what_the_model_read_and_wrote(tmp_path: Path) -> None:
    """Special tokens included; the action is the end of a response that could not be parsed."""
    tokenizer = chat_tokenizer()
    prompt = "<|im_start|>user\nYou are in a room. \u00fc<|im_end|>\n<|im_start|>assistant\n"
    response = "Let me think about the fridge, which is far away from here .<|im_end|>"
    steps = [
        Step(*(tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, response)), [], [0.1], action=a)
        for a in ("far away from here .", "")
    ]
    nobody = Step([], [], [], [], action="of an expert")
    trajectory = Trajectory(Task("t", "pick", "train"), 0, 0, [*steps, nobody])
    save_trajectories(tmp_path, 0, "eval", [trajectory], text_of=text_with_special_tokens(tokenizer))
    first, second, last = lines(tmp_path, "update-000000-eval.jsonl")[0]["steps"]
    assert (first["prompt"], first["response"], first["action"]) == (prompt, response, "far away from here .")
    assert (second["prompt"], second["response"], second["action"]) == (prompt, response, "")
    assert "prompt" not in last and "response" not in last


def test_of_a_server_the_tokens_are_not_counted(tmp_path: Path) -> None:
    codec = MessageCodec()
    step = codec.step(codec.opening("a prompt"), codec.response("an answer"))
    played = [Trajectory(Task("t", "pick", "train"), 0, 0, [step])]
    save_trajectories(tmp_path, 0, "eval", played)
    (kept,) = lines(tmp_path, "update-000000-eval.jsonl")[0]["steps"]
    assert (kept["prompt"], kept["response"], kept["tokens"], kept["entropy"]) == ("a prompt", "an answer", None, None)
    assert kept["policy_version"] is None


def test_nothing_kept_no_file(tmp_path: Path) -> None:
    save_trajectories(tmp_path, 0, "eval", [])
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_drops_what_comes_after_its_checkpoint(tmp_path: Path, played: list[Trajectory]) -> None:
    for update in (0, 4, 8):
        save_trajectories(tmp_path, update, "eval", played)
    drop_trajectories(tmp_path, 4)
    assert [path.name for path in sorted((tmp_path / "trajectories").iterdir())] == [
        "update-000000-eval.jsonl", "update-000004-eval.jsonl",
    ]  # fmt: skip
    drop_trajectories(tmp_path, -1)
    assert list((tmp_path / "trajectories").iterdir()) == []
