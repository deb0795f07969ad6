"""The warm start: what is demonstrated, in which form, what trains, and when a cached policy may be taken."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.config.schema import Rollout
from empg_cli.config.trainer import WarmStart
from empg_cli.experiment import fresh_or_resumed
from empg_cli.learner import imitation as warm_start
from empg_cli.learner.checkpoint import save_checkpoint
from empg_cli.learner.demonstrations import (
    MAX_FAILURES,
    Demonstration,
    ExpertFails,
    ImitationRow,
    demonstrate,
    demonstrations,
)
from empg_cli.learner.imitation import accumulate_imitation_gradient, warm_start_key, warm_started
from empg_cli.model.loading import load_policy
from empg_cli.model.tiny import word_tokenizer
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Task
from tests.support.tiny import tiny_config, tiny_policy

CODEC = CompactCodec(word_tokenizer(vocabulary()))
SETTINGS = WarmStart(steps=3, batch_size=4, lr=1e-3, mistakes=0.0, prompt_weight=0.0, keep_failed=False)
ROOM = "You are in the middle of a room. You see a safe 1.\n\nYour task is to: put a cd in safe."
CFG = tiny_config(
    *("trainer.warm_start.steps=2", "trainer.warm_start.batch_size=2"),
    *("benchmark.max_steps=40", "benchmark.train_games=4"),
)
TRANSCRIPT = CFG.rollout.model_copy(update={"context": "transcript", "max_context_tokens": 2048, "max_new_tokens": 5})
WINDOW = TRANSCRIPT.model_copy(update={"context": "window"})


@dataclass
class Rooms:
    """Three commands and an episode is over; task t<n> is solved when `solvable` has n."""

    solvable: frozenset[int]
    name: str = "rooms"

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"t{number}", "k", split, data=number) for number in range(8)]

    def make_env(self, task: Task) -> Room:
        return Room(task, task.data in self.solvable)

    def expert(self, env: Any, rng: random.Random | None = None) -> Iterator[str]:
        while True:
            yield "look"


class Room:
    def __init__(self, task: Task, is_solved: bool) -> None:
        self.task, self._is_solved, self._steps = task, is_solved, 0

    def reset(self) -> Observation:
        return Observation(ROOM, ("inventory",))

    def step(self, action: str) -> StepResult:
        self._steps += 1
        done = self._steps == 3
        return StepResult("Nothing happens.", ("inventory",), 0.0, done, done and self._is_solved, 0.0, True)


def agent(context: str = "transcript", history: int = 0) -> Agent:
    return Agent(AlfworldCompact(), CODEC, context=context, history=history)


def shown(rollout: Rollout, mistakes: float = 0.0, prompt_weight: float = 0.0, history: int = 0) -> Demonstration:
    benchmark: Any = Rooms(frozenset({0}))
    return demonstrate(
        benchmark,
        benchmark.tasks("train")[0],
        agent(rollout.context, history),
        random.Random(3),
        mistakes=mistakes,
        prompt_weight=prompt_weight,
        rollout=rollout,
    )


def words(ids: list[int]) -> str:
    return " ".join(CODEC._tokenizer.convert_ids_to_tokens(ids))


def test_a_transcript_is_one_row_whose_responses_train() -> None:
    (row,) = shown(TRANSCRIPT, prompt_weight=0.25).rows
    trained = [token for token, weight in zip(row.token_ids, row.weights, strict=True) if weight == 1]
    assert words(trained) == "look <end> look <end> look <end>"
    assert set(row.weights) == {0.25, 1.0}


def test_a_window_has_one_row_a_step_with_the_prompt_that_a_rollout_would_give() -> None:
    rows = shown(WINDOW, history=2).rows
    player = agent("window", 2)
    prompts = [player.start(Observation(ROOM, ("inventory",)))]
    for _ in range(2):
        prompts.append(player.next_prompt("look", Observation("Nothing happens.", ("inventory",)), ended=True))
    response = CODEC.response("look")
    assert [row.token_ids for row in rows] == [prompt + response for prompt in prompts]
    assert [row.weights for row in rows] == [[0.0] * len(prompt) + [1.0] * len(response) for prompt in prompts]
    assert len({len(prompt) for prompt in prompts}) == 3  # 0, 1 and 2 past exchanges: not the same prompt thrice


@pytest.mark.parametrize("rollout", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_inserted_mistakes_are_shown_and_never_train(rollout: Rollout) -> None:
    demonstration = shown(rollout, mistakes=0.5, prompt_weight=0.0)
    trained, hidden = [], []
    for row in demonstration.rows:
        for token, weight in zip(row.token_ids, row.weights, strict=True):
            (trained if weight else hidden).append(token)
    assert "inventory" in words(hidden)
    assert "inventory" not in words(trained)
    assert set(words(trained).split()) == {"look", "<end>"}


def test_the_gradient_ignores_what_a_mistake_said() -> None:
    """Two rows that differ in the mistake's own tokens, at the end where no later token could see them."""
    policy = tiny_policy(CFG)
    prompt, look, wrong = CODEC.opening("task"), CODEC.response("look"), CODEC.response("inventory")
    gradients = []
    for mistake in (wrong, CODEC.response("help")):
        row = ImitationRow()
        row.add(prompt, 0.0)
        row.add(look, 1.0)
        row.add(mistake, 0.0)
        accumulate_imitation_gradient(policy, [row])
        gradients.append([parameter.grad.clone() for parameter in policy.model.parameters()])
        policy.model.zero_grad()
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_failed_demonstrations_are_replaced_by_others() -> None:
    benchmark: Any = Rooms(frozenset({1, 5}))
    for _, batch in zip(range(20), demonstrations(benchmark, agent, SETTINGS, TRANSCRIPT, seed=0), strict=False):
        assert [demonstration.success for demonstration in batch] == [True] * 4
    everything = SETTINGS.model_copy(update={"keep_failed": True})
    kept = next(demonstrations(benchmark, agent, everything, TRANSCRIPT, seed=0))
    assert not all(demonstration.success for demonstration in kept)


def test_an_expert_that_never_succeeds_is_one_clear_error() -> None:
    benchmark: Any = Rooms(frozenset())
    with pytest.raises(ExpertFails, match=rf"{MAX_FAILURES} demonstrations .* not one solved its task\n.*max_steps"):
        next(demonstrations(benchmark, agent, SETTINGS, TRANSCRIPT, seed=0))


@pytest.mark.parametrize("rollout", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_an_episode_that_a_rollout_could_not_finish_is_not_demonstrated(rollout: Rollout) -> None:
    fits = shown(rollout)
    # The rows hold the response (look <end>, 2 tokens); a rollout must have room for max_new_tokens = 5.
    needed = max(len(row.token_ids) for row in fits.rows) - 2 + 5
    assert shown(rollout.model_copy(update={"max_context_tokens": needed})).success
    cut = shown(rollout.model_copy(update={"max_context_tokens": needed - 1}))
    assert not cut.success
    assert cut.did_not_fit == f"rollout.max_context_tokens={needed - 1} ({needed})"
    assert shown(rollout.model_copy(update={"max_new_tokens": 1})).did_not_fit == "rollout.max_new_tokens=1 (2)"
    benchmark: Any = Rooms(frozenset(range(8)))
    small = TRANSCRIPT.model_copy(update={"max_context_tokens": 12})
    with pytest.raises(ExpertFails, match=r"did not fit .*max_context_tokens=12 \(\d+\) tokens needed\n  Raise"):
        next(demonstrations(benchmark, agent, SETTINGS, small, seed=0))


def changed(**sections: dict[str, Any]) -> Any:
    updates = {name: getattr(CFG, name).model_copy(update=values) for name, values in sections.items()}
    return CFG.model_copy(update=updates)


OTHERS = {
    "the seed": CFG.model_copy(update={"seed": 1}),
    "episode length": changed(benchmark={"max_steps": 5}),
    "context": changed(rollout={"context": "window", "history": 0}),
    "history": changed(rollout={"context": "window", "history": 2}),
    "prompt form": changed(model={"prompt": "chat"}),
    "context limit": changed(rollout={"max_context_tokens": 100}),
    "response limit": changed(rollout={"max_new_tokens": 4}),
    "steps": changed(trainer={"warm_start": CFG.trainer.warm_start.model_copy(update={"steps": 3})}),
    "task types": changed(benchmark={"task_types": ["pick_and_place_simple"]}),
}


def test_whatever_demonstrations_depend_on_is_in_the_key() -> None:
    policy = tiny_policy(CFG)
    benchmark = make_benchmark(**CFG.benchmark.model_dump())
    keys = {name: warm_start_key(policy, benchmark, cfg) for name, cfg in OTHERS.items()}
    keys["as it is"] = warm_start_key(policy, benchmark, CFG)
    other_weights = load_policy(CFG.model, "alfworld", words=vocabulary(), seed=1, device=torch.device("cpu"))
    keys["weights"] = warm_start_key(other_weights, benchmark, CFG)
    policy.tokenizer.chat_template = "{{ messages }}"
    keys["chat template"] = warm_start_key(policy, benchmark, CFG)
    assert len(set(keys.values())) == len(keys)


def test_the_expert_is_in_the_key() -> None:
    policy = tiny_policy(CFG)
    shopper, goal = (tiny_config("benchmark=webshop", f"benchmark.expert={expert}") for expert in ("shopper", "goal"))
    benchmark: Any = type("Same", (), {"fingerprint": lambda self: {"digest": "d"}})()
    assert warm_start_key(policy, benchmark, shopper) != warm_start_key(policy, benchmark, goal)


def test_what_only_evaluation_reads_is_not_in_the_key() -> None:
    policy, benchmark = tiny_policy(CFG), make_benchmark(**CFG.benchmark.model_dump())
    other = changed(benchmark={"split": "valid_unseen", "eval_tasks": 7, "invalid_action_penalty": 0.3})
    assert warm_start_key(policy, benchmark, other) == warm_start_key(policy, benchmark, CFG)


@pytest.mark.parametrize("file", ["agents/alfworld_compact.py", "benchmarks/alfworld/rules.json"])
def test_an_edited_wording_or_table_changes_the_key(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(warm_start.empg_cli.__file__).parent
    for name in ("agents/alfworld_compact.py", "benchmarks/alfworld/rules.json", "benchmarks/base.py",
                 "learner/demonstrations.py", "learner/imitation.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((source / name).read_bytes())
    monkeypatch.setattr(warm_start.empg_cli, "__file__", str(tmp_path / "__init__.py"))
    before = warm_start.code_digest("alfworld")
    assert before == warm_start.code_digest("alfworld")
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes() + b"\n")
    assert warm_start.code_digest("alfworld") != before


def test_a_cached_policy_is_the_one_that_was_made_and_keeps_checkpointing() -> None:
    benchmark = make_benchmark(**CFG.benchmark.model_dump())
    made = warm_started(tiny_policy(CFG), benchmark, CFG)
    steps: list[int] = []
    cfg = changed(model={"gradient_checkpointing": True})
    cached = warm_started(tiny_policy(CFG), benchmark, cfg, on_step=lambda step, _: steps.append(step))
    assert steps == []
    for first, second in zip(made.model.parameters(), cached.model.parameters(), strict=True):
        assert torch.equal(first, second)
    assert cached.model.is_gradient_checkpointing
    assert not made.model.is_gradient_checkpointing


def test_a_resumed_policy_keeps_checkpointing(tmp_path: Path) -> None:
    cfg = changed(model={"gradient_checkpointing": True})
    policy = tiny_policy(CFG)
    optimizer = torch.optim.AdamW(policy.model.parameters())
    save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=1)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    run: Any = type("Run", (), {"resume_from": checkpoint, "held": None})()
    resumed, _, state = fresh_or_resumed(cfg, policy, run)
    assert state.update == 1
    assert resumed.model.is_gradient_checkpointing
