"""The warm start: what is demonstrated, in which form, what trains, and when a cached policy may be taken."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli import experiment
from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_compact import AlfworldCompact, vocabulary
from empg_cli.agents.codec import CompactCodec
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.config.rollout import Rollout
from empg_cli.config.trainer import WarmStart
from empg_cli.evaluation.evaluate import evaluate_expert
from empg_cli.experiment import fresh_or_resumed
from empg_cli.learner import course, imitation, warm_start
from empg_cli.learner.checkpoint import save_checkpoint
from empg_cli.learner.demonstrations import (
    MAX_FAILURES,
    Demonstration,
    ExpertFails,
    ImitationRow,
    Lessons,
    demonstrate,
    demonstrations,
)
from empg_cli.learner.imitation import accumulate_imitation_gradient
from empg_cli.learner.warm_start import warm_start_key, warm_started
from empg_cli.loop import train
from empg_cli.model.loading import load_policy
from empg_cli.model.tiny import word_tokenizer
from empg_cli.ranks import ALONE
from empg_cli.runs.began_with import note_policy
from empg_cli.runs.checkpoint import TrainState
from empg_cli.runs.run_file import read_run_file, update_run_file
from empg_cli.runs.trajectories import save_trajectories
from empg_cli.runs.warm_start import RECORD, STATE, read_record
from empg_cli.signals import Interrupted, caught
from empg_cli.types import Task
from tests.support.tiny import tiny_config, tiny_policy

CODEC = CompactCodec(word_tokenizer(vocabulary()))
SETTINGS = WarmStart(
    file=None,
    steps=3,
    epochs=1,
    held_out=0.0,
    batch_size=4,
    lr=1e-3,
    mistakes=0.0,
    prompt_weight=0.0,
    keep_failed=False,
)
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
    "type of the passes": changed(model={"dtype": "bfloat16"}),
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


def test_settings_that_nobody_reads_are_not_in_the_key(tmp_path: Path) -> None:
    policy, benchmark = tiny_policy(CFG), make_benchmark(**CFG.benchmark.model_dump())

    def key(**settings: Any) -> str:
        warm_start_settings = CFG.trainer.warm_start.model_copy(update=settings)
        return warm_start_key(policy, benchmark, changed(trainer={"warm_start": warm_start_settings}))

    assert key(held_out=0.5) == key(held_out=0.0) and key(mistakes=0.9) != key(mistakes=0.0)
    (tmp_path / "demos.jsonl").write_text("{}\n")
    file = {"file": str(tmp_path / "demos.jsonl")}
    assert key(**file, held_out=0.5) != key(**file, held_out=0.0) and key(**file, mistakes=0.9) == key(**file)


def test_the_expert_is_in_the_key() -> None:
    policy = tiny_policy(CFG)
    shopper, goal = (tiny_config("benchmark=webshop", f"benchmark.expert={expert}") for expert in ("shopper", "goal"))
    benchmark: Any = type("Same", (), {"fingerprint": lambda self: {"digest": "d"}})()
    assert warm_start_key(policy, benchmark, shopper) != warm_start_key(policy, benchmark, goal)


def test_what_only_evaluation_reads_is_not_in_the_key() -> None:
    policy, benchmark = tiny_policy(CFG), make_benchmark(**CFG.benchmark.model_dump())
    other = changed(benchmark={"split": "valid_unseen", "eval_tasks": 7, "invalid_action_penalty": 0.3})
    assert warm_start_key(policy, benchmark, other) == warm_start_key(policy, benchmark, CFG)


@pytest.mark.parametrize("file", ["agents/alfworld_compact.py", "benchmarks/alfworld/rules.json", *warm_start.CODE])
def test_an_edited_wording_or_table_changes_the_key(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(warm_start.empg_cli.__file__).parent
    for name in ("agents/alfworld_compact.py", "benchmarks/alfworld/rules.json", "benchmarks/base.py",
                 *warm_start.CODE):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((source / name).read_bytes())
    monkeypatch.setattr(warm_start.empg_cli, "__file__", str(tmp_path / "__init__.py"))
    before = warm_start.code_digest("alfworld")
    assert before == warm_start.code_digest("alfworld")
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes() + b"\n")
    assert warm_start.code_digest("alfworld") != before


def test_a_cached_policy_is_the_one_that_was_made_and_keeps_checkpointing(tmp_path: Path) -> None:
    benchmark = make_benchmark(**CFG.benchmark.model_dump())
    told: list[tuple[int, int]] = []
    made = warm_started(tiny_policy(CFG), benchmark, CFG, tmp_path, progress=lambda *far: told.append(far))
    assert told == [(0, 2), (1, 2), (2, 2)]
    losses = (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).unlink()
    steps: list[int] = []
    cfg = changed(model={"gradient_checkpointing": True})
    cached = warm_started(tiny_policy(CFG), benchmark, cfg, tmp_path, progress=lambda step, _: steps.append(step))
    assert steps == []
    assert (tmp_path / RECORD).read_text() == losses
    for first, second in zip(made.model.parameters(), cached.model.parameters(), strict=True):
        assert torch.equal(first, second)
    assert cached.model.is_gradient_checkpointing
    assert not made.model.is_gradient_checkpointing


def small_warm_start(folder: Path, *words: str) -> tuple[list[bytes], str]:
    """Weights and losses after a warm start of 4 steps, whose cache is empty."""
    cfg = tiny_config(
        *("trainer.warm_start.batch_size=2", "benchmark.max_steps=40", "benchmark.train_games=4"),
        *("rollout.max_context_tokens=2048", "trainer.tokens_per_microbatch=100", *words),
    )
    policy, benchmark = tiny_policy(cfg), make_benchmark(**cfg.benchmark.model_dump())
    folder.mkdir(exist_ok=True)
    with caught():
        warm_started(policy, benchmark, cfg, folder)
    weights = [parameter.detach().numpy().tobytes() for parameter in policy.parameters()]
    return weights, (folder / RECORD).read_text()


STOPS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "expert": lambda passes: (passes // 2, passes * 7 // 8),
    "file": lambda passes: (passes // 2, passes * 3 // 4, passes - 1),
}


@pytest.mark.parametrize("source", ["expert", "file"])
def test_a_warm_start_that_is_stopped_goes_on_bit_for_bit(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["trainer.warm_start.steps=4"]
    if source == "file":
        cfg = tiny_config("benchmark.max_steps=40", "benchmark.train_games=4", "benchmark.split=train")
        benchmark = make_benchmark(**cfg.benchmark.model_dump())
        save_trajectories(tmp_path, 0, "eval", evaluate_expert(benchmark, cfg.benchmark, seed=0).trajectories)
        file = tmp_path / "trajectories" / "update-000000-eval.jsonl"
        words += [f"trainer.warm_start.file={file}", "trainer.warm_start.held_out=0.3"]
    passes, stops, nll = 0, set[int](), imitation.weighted_nll

    def counted(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return nll(*arguments)

    monkeypatch.setattr(imitation, "weighted_nll", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "straight-cache"))
    straight = small_warm_start(tmp_path / "straight", *words)
    assert not (tmp_path / "straight" / STATE).exists()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(course, "SAVE_EVERY_S", 0.0)  # every step
    # Of a file the last stop comes while what is held out is read, behind the last step.
    stops, steps = {passes + part for part in STOPS[source](passes)}, list[int]()
    last = 4 if source == "file" else 3
    for _ in stops:
        with pytest.raises(Interrupted):
            small_warm_start(tmp_path / "run", *words)
        steps.append(torch.load(tmp_path / "run" / STATE, weights_only=True)["step"])
    assert 0 < steps[0] < steps[1] and steps[-1] == last, "it went on"
    assert small_warm_start(tmp_path / "run", *words) == straight
    assert not (tmp_path / "run" / STATE).exists()
    rows = read_record(tmp_path / "run")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    measured = [row["step"] for row in rows if "held_out_loss" in row]
    assert measured == ([0, 4] if source == "file" else [])


def test_the_state_of_another_warm_start_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = tiny_policy(CFG)
    optimizer = torch.optim.AdamW(policy.parameters())
    mine = course.Course(tmp_path / STATE, "mine", policy.device)
    mine.save(policy, optimizer, 7)
    assert course.Course(tmp_path / STATE, "mine", policy.device).done == 7
    assert course.Course(tmp_path / STATE, "yours", policy.device).done == 0
    assert "begins anew" in caplog.text and "other settings" in caplog.text
    (tmp_path / STATE).write_bytes(b"half")
    assert course.Course(tmp_path / STATE, "mine", policy.device).done == 0
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(("setting", "most"), [(64, 64), (100_000, imitation.TOKENS_PER_MICROBATCH)])
def test_passes_are_bounded_by_the_setting(setting: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, seen, nll = tiny_policy(CFG), [], imitation.weighted_nll
    rows = []
    for length in (3, 30, 5, 31, 29) * 40:
        rows.append(ImitationRow())
        rows[-1].add(list(range(length)), 1.0)

    def noted(policy: Any, together: Any) -> Any:
        seen.append(len(together) * max(len(row.token_ids) for row in together))
        return nll(policy, together)

    monkeypatch.setattr(imitation, "weighted_nll", noted)
    lessons = Lessons(lambda first: iter([rows]), steps=1)
    imitation.imitate(policy, lessons, lr=1e-3, tokens_per_microbatch=setting)
    assert most / 2 < max(seen) <= most


def test_a_gradient_that_is_none_ends_the_warm_start_and_leaves_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, nll = tiny_policy(CFG), imitation.weighted_nll
    before = [parameter.clone() for parameter in policy.parameters()]
    row = ImitationRow()
    row.add([1, 2, 3], 1.0)
    monkeypatch.setattr(imitation, "weighted_nll", lambda *given: nll(*given) * math.inf)
    with pytest.raises(imitation.NotFinite, match=r"step 1 of the warm start .* lower trainer\.warm_start\.lr"):
        imitation.imitate(policy, Lessons(lambda first: iter([[row]]), steps=3), lr=1e-3)
    assert all(torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))


def test_the_rate_of_a_short_warm_start_reaches_its_height() -> None:
    """A tenth of the steps, a hundred at most."""
    factor = imitation.learning_rate_factor
    assert factor(0, 2000) == pytest.approx(0.01)
    assert factor(99, 2000) == pytest.approx(1 - 0.9 * 99 / 2000)
    assert factor(0, 20) == pytest.approx(0.5)
    assert factor(1, 20) == pytest.approx(1 - 0.9 / 20)  # 1 after two steps, less the decay of one of twenty
    assert factor(0, 1) == 1
    assert factor(1000, 1000) == pytest.approx(0.1)


def test_the_content_of_a_file_is_in_the_key_and_its_place_is_not(tmp_path: Path) -> None:
    policy, benchmark = tiny_policy(CFG), make_benchmark(**CFG.benchmark.model_dump())
    keys = []
    for name, content in (("a", "one"), ("b", "one"), ("a", "two")):
        (tmp_path / name).write_text(content)
        cfg = tiny_config(f"trainer.warm_start.file={tmp_path / name}")
        keys.append(warm_start_key(policy, benchmark, cfg))
    assert keys[0] == keys[1] != keys[2]


def test_a_resumed_policy_keeps_checkpointing(tmp_path: Path) -> None:
    cfg = changed(model={"gradient_checkpointing": True})
    policy = tiny_policy(CFG)
    optimizer = torch.optim.AdamW(policy.model.parameters())
    save_checkpoint(tmp_path, policy, optimizer, TrainState(update=1), keep=1)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    run: Any = type("Run", (), {"resume_from": checkpoint, "held": None})()
    resumed, _, state = fresh_or_resumed(cfg, policy, run, ALONE)
    assert state.update == 1
    assert resumed.model.is_gradient_checkpointing


@pytest.mark.parametrize(("kl_coef", "times"), [(0.0, 1), (0.01, 2)])
def test_a_run_that_goes_on_warm_starts_again_for_its_reference_alone(
    kl_coef: float, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(*some: Any, **named: Any) -> Any:
        made.append(1)
        return warm_started(*some, **named)

    monkeypatch.setattr(experiment, "warm_started", counted)
    words = ("trainer.warm_start.steps=1", "trainer.warm_start.batch_size=2", "trainer.warm_start.keep_failed=true",
             "trainer.checkpoint_every=1", "trainer.eval_before=false", "trainer.eval_every=0",
             "benchmark.eval_tasks=2", "trainer.tasks_per_update=2", "algo.group_size=2",
             "trainer.health.preflight=warn",
             f"algo.loss.kl_coef={kl_coef}")  # fmt: skip
    train(tiny_config(*words, "trainer.updates=1"), tmp_path / "run")
    first = read_run_file(tmp_path / "run")
    train(tiny_config(*words, "trainer.updates=2", "resume=auto"), tmp_path / "run")
    assert len(made) == times
    assert read_run_file(tmp_path / "run")["model"] == first["model"]


KL = ("trainer.warm_start.steps=1", "trainer.warm_start.batch_size=2", "trainer.warm_start.keep_failed=true",
      "trainer.warm_start.lr=0.01", "trainer.checkpoint_every=1", "trainer.eval_before=false", "trainer.eval_every=0",
      "benchmark.eval_tasks=2", "trainer.tasks_per_update=2", "algo.group_size=2", "trainer.health.preflight=warn",
      "algo.loss.kl_coef=0.01")  # fmt: skip
OTHER_POLICY = "made anew by other code, packages or settings: the KL reference is another policy"


@pytest.mark.parametrize("is_kept", [True, False])
def test_after_an_upgrade_the_reference_is_the_policy_that_the_run_began_with_or_it_is_said(
    is_kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train(tiny_config(*KL, "trainer.updates=1"), tmp_path / "run")
    began = read_run_file(tmp_path / "run")
    assert (tmp_path / "cache" / "empg" / "warm-start" / began["warm_start"]).is_dir()
    monkeypatch.setattr(warm_start, "code_digest", lambda _: "of a newer empg")  # which imitates otherwise
    monkeypatch.setattr(imitation, "learning_rate_factor", lambda *_: 0.1)
    if not is_kept:
        shutil.rmtree(tmp_path / "cache")
    caplog.clear()
    train(tiny_config(*KL, "trainer.updates=2", "resume=auto"), tmp_path / "run")
    assert (OTHER_POLICY in caplog.text) == (not is_kept)
    assert "rounded" not in caplog.text
    now = read_run_file(tmp_path / "run")
    assert (now["warm_start"], now["model"]) == (began["warm_start"], began["model"])


def test_a_warm_start_of_the_same_key_with_other_weights_was_rounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    untold = "or by other code or packages, which the run has not recorded"
    for recorded, said in (("one", "rounded differently, and"), ("other", OTHER_POLICY), (None, untold)):
        update_run_file(tmp_path, ("warm_start",), model={"digest": "a"})
        if recorded:
            update_run_file(tmp_path, warm_start=recorded)
        caplog.clear()
        assert not note_policy(tmp_path, {"digest": "b"}, "one", goes_on=True, is_computed=True)
        assert said in caplog.text
