"""Benchmarks as environments with one tool, and EMPG's credit of turns in padded rows: the same numbers as ours."""

from __future__ import annotations

import importlib
import inspect
import random
import re
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from empg_cli.algorithms.empg import modulate, step_entropy
from empg_cli.config.algo import EmpgCredit
from empg_cli.errors import UserError
from empg_cli.integrations.chats import Chats
from empg_cli.integrations.tools import OPENING, OVER, ToolEnv, ToolTasks, success
from empg_cli.integrations.turns import on_tokens, turn_credit, turn_entropies, turn_numbers
from tests.support.tool_calls import Doors, doors

KEYS = {"train_games": 5, "max_steps": 4}
PLAIN: Any = {
    "normalise": "minmax", "tail": None, "control": "none", "order": "scale_then_center", "scaled": "all", "shift": 0.0,
}  # fmt: skip


def begun(tasks: ToolTasks) -> tuple[ToolEnv, str]:
    env = tasks.environment()
    (row,) = tasks.rows("train", 1)
    return env, env.reset(**row)


def test_an_episode_by_tool_calls_is_the_episode_of_a_chat() -> None:
    actions = ("look", "dance", "inventory", "go to fridge 1")
    keys = KEYS | {"invalid_action_scope": "admissible"}
    env, shown = begun(ToolTasks("alfworld", **keys))
    chats = Chats("alfworld", **keys)
    chat = chats.begin(next(chats.rows("train", 1))["info"])
    assert shown.split("\n\n")[1] in chat.said  # the same room
    for action in actions:
        answer, said = env.act(action), chat.answer(f"<think>So.</think><action>{action}</action>")
        assert answer.split("\n\n")[0] in said
    assert env.is_over and chat.is_over and answer.endswith(OVER)
    assert env.get_reward() == pytest.approx(chat.reward) and env.get_reward() < 0  # what dancing cost
    assert (env.success, env.score) == (chat.success, chat.score)
    assert [step.action for step in env.steps] == list(actions)


def test_after_the_end_nothing_changes() -> None:
    env, _ = begun(doors())
    assert [env.act(command) for command in ("green", "red", "red")] == ["room 2", f"out\n\n{OVER}", OVER]
    assert (env.get_reward(), len(env.steps)) == (1.0, 2)
    assert success([env]) == [1.0]


def test_a_reset_forgets_the_last_episode() -> None:
    tasks = doors()
    env, shown = begun(tasks)
    env.act("green")
    env.act("red")
    assert env.reset(**next(tasks.rows("train"))) == shown
    assert (env.is_over, env.success, env.score, env.steps, env.get_reward()) == (False, False, 0.0, [], 0)


def test_an_environment_that_fails_gives_no_reward() -> None:
    env, _ = begun(doors())
    env.act("green")
    assert env.act("break") == OVER
    assert env.error == "RuntimeError: the door is stuck"
    assert env.get_reward() is None and success([env]) == [None]


def test_a_task_without_an_environment_gives_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Doors, task: object) -> None:
        raise OSError("no such game")

    monkeypatch.setattr(Doors, "make_env", none)
    env, shown = begun(doors())
    assert (shown, env.act("green"), env.get_reward()) == (OVER, OVER, None)


def test_rows_name_their_tasks() -> None:
    tasks = ToolTasks("alfworld", **KEYS)
    rows = list(tasks.rows("train"))
    assert [row["info"]["task_id"] for row in rows] == [task.task_id for task in tasks.benchmark.tasks("train")]
    assert {row["prompt"][0]["content"] for row in rows} == {OPENING}


@pytest.mark.parametrize("change", [{"number": 1}, {"number": 99}, {"number": -1}, {"task_id": "none"}])
def test_a_row_of_other_data_is_refused(change: dict[str, object]) -> None:
    tasks = doors()
    info = next(tasks.rows("train"))["info"]
    with pytest.raises(UserError, match="not what the dataset was written from"):
        tasks.environment().reset(info=info | change)


def test_act_is_the_only_tool() -> None:
    """What TRL takes for a tool: each public function of the class but `reset` and `get_reward`."""
    public = {name for name, _ in inspect.getmembers(ToolEnv, inspect.isfunction) if not name.startswith("_")}
    assert public == {"reset", "act", "get_reward"}


def test_turns_are_runs_of_sampled_tokens() -> None:
    mask_BT = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]]).bool()
    turn_BT = turn_numbers(mask_BT)
    assert turn_BT.tolist() == [[0, 0, -1, 1, -1, -1, 2], [-1, 0, 0, 0, -1, -1, -1], [-1] * 7]
    entropy_BT = torch.tensor([[1.0, 3, 99, 5, 99, 99, 7], [99, 1, 2, 6, 99, 99, 99], [float("nan")] * 7])
    entropy_BS, turns_B = turn_entropies(entropy_BT, turn_BT)
    assert entropy_BS.tolist() == [[2, 5, 7], [3, 0, 0], [0, 0, 0]]  # (1 + 3) / 2; (1 + 2 + 6) / 3
    assert turns_B.tolist() == [3, 1, 0]
    spread_BT = on_tokens(torch.tensor([[1.0, 2, 3], [4, 0, 0], [0, 0, 0]]), turn_BT)
    assert spread_BT.tolist() == [[1, 1, 0, 2, 0, 0, 3], [0, 4, 4, 4, 0, 0, 0], [0] * 7]


@pytest.mark.parametrize("center", [True, False])
def test_the_credit_of_turns_is_that_of_our_steps(center: bool) -> None:
    """Random conversations, each turn written as a step of ours; row 2 was not judged, row 3 has no turn."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    lengths = [[rng.randint(1, 5) for _ in range(turns)] for turns in (4, 1, 3, 0, 6)]
    width = 5 * 6 + 6
    mask_BT, entropy_BT = torch.zeros(5, width, dtype=torch.bool), torch.rand(5, width, generator=generator)
    advantage_N = torch.randn(5, generator=generator)
    is_scored_N = torch.tensor([True, True, False, True, True])
    steps, where = [], []
    for row, turns in enumerate(lengths):
        start = 0
        for number, length in enumerate(turns):
            mask_BT[row, start : start + length] = True
            if is_scored_N[row]:
                steps.append(entropy_BT[row, start : start + length])
                where.append((row, number))
            start += length + rng.randint(1, 2)
    padded_ST = torch.nn.utils.rnn.pad_sequence(steps, batch_first=True)
    mask_ST = torch.nn.utils.rnn.pad_sequence([torch.ones(len(s)) for s in steps], batch_first=True).bool()
    follows = [one[0] == other[0] for one, other in pairwise(where)]
    next_S = torch.tensor([*(i + 1 if same else -1 for i, same in enumerate(follows)), -1])
    knobs = {"k": 1.3, "k_future": 0.7, "zeta": 0.1, "center": center}
    row_S = torch.tensor([row for row, _ in where])
    expected_S = modulate(advantage_N[row_S], step_entropy(padded_ST, mask_ST), next_S, **knobs)

    entropy_BS, turns_B = turn_entropies(entropy_BT, turn_numbers(mask_BT))
    settings = EmpgCredit(kind="empg", **PLAIN, **knobs)
    credit_NS, metrics = turn_credit(settings, advantage_N, entropy_BS, turns_B, is_scored_N)
    found_S = torch.stack([credit_NS[row, number] for row, number in where])
    torch.testing.assert_close(found_S, expected_S, atol=1e-6, rtol=0)
    assert credit_NS.count_nonzero() == len(where)  # nothing on padding, nor on the row that nobody judged
    assert metrics["empg/weight/mean"] == pytest.approx(1.0)


def test_a_batch_that_nobody_could_judge_has_no_credit() -> None:
    entropy_BS, turns_B = turn_entropies(torch.rand(2, 3), turn_numbers(torch.ones(2, 3).bool()))
    settings = EmpgCredit(kind="empg", k=1, k_future=1, zeta=0.05, center=True, **PLAIN)
    credit_NS, _ = turn_credit(settings, torch.zeros(2), entropy_BS, turns_B, torch.zeros(2).bool())
    assert credit_NS.tolist() == [[0], [0]]


def test_an_entropy_that_is_no_number_is_refused() -> None:
    entropy_BS, turns_B = turn_entropies(torch.full((1, 3), float("nan")), turn_numbers(torch.ones(1, 3).bool()))
    settings = EmpgCredit(kind="empg", k=1, k_future=1, zeta=0.05, center=True, **PLAIN)
    with pytest.raises(ValueError, match="entropy of step 0 is nan"):
        turn_credit(settings, torch.zeros(1), entropy_BS, turns_B, torch.ones(1).bool())


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        (None, "this needs TRL: "),
        (SimpleNamespace(__version__="9.0", GRPOTrainer=type("GRPOTrainer", (), {})), "TRL 9.0 has no _generate_and"),
    ],
    ids=["absent", "another"],
)
def test_without_what_is_needed_of_trl_the_command_is_said(
    fake: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", fake)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "empg_cli.integrations.trl", raising=False)
    with pytest.raises(ImportError, match=re.escape(words)) as refused:
        importlib.import_module("empg_cli.integrations.trl")
    assert "trl>=1.16,<1.17" in str(refused.value)
