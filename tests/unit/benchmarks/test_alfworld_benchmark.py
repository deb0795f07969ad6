"""`make_benchmark("alfworld", ...)`: the keys of conf/benchmark/alfworld.yaml in; tasks, environments, expert out."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.alfworld import benchmark as module
from empg_cli.benchmarks.alfworld.benchmark import AlfworldBenchmark
from empg_cli.benchmarks.alfworld.tables import KINDS, SPLITS
from empg_cli.benchmarks.base import Benchmark, DataError, Env
from empg_cli.config.problems import ConfigError
from empg_cli.types import Task

LOOK = "look_at_obj_in_light"
HEAT = "pick_heat_then_place_in_recep"
KEYS: dict[str, Any] = {
    "name": "alfworld",
    "data_dir": None,
    "split": "valid_seen",
    "eval_tasks": None,
    "max_steps": 50,
    "success_reward": 10.0,
    "invalid_action_penalty": 0.1,
    "invalid_action_scope": "format",
    "task_types": list(KINDS),
    "train_games": 300,
    "game_seed": 0,
}


def make(**changes: Any) -> AlfworldBenchmark:
    bench = make_benchmark(**{**KEYS, **changes})
    assert isinstance(bench, AlfworldBenchmark)
    return bench


def test_it_is_what_the_contract_says() -> None:
    bench = make()
    task = bench.tasks("train")[0]
    assert isinstance(bench, Benchmark)
    assert isinstance(bench.make_env(task), Env)
    assert bench.splits == SPLITS


def test_tasks_have_fixed_ids_kinds_and_order() -> None:
    tasks, again = make().tasks("valid_unseen"), make().tasks("valid_unseen")
    assert len(tasks) == 134
    assert list(tasks) == list(again)
    assert len({task.task_id for task in tasks}) == 134
    assert tasks[3] == Task("valid_unseen/generated-0-00003", tasks[3].kind, "valid_unseen")
    assert tasks[-1] == tasks[133]
    assert list(tasks[2:5]) == [tasks[2], tasks[3], tasks[4]]
    with pytest.raises(IndexError):
        tasks[134]


def test_the_game_belongs_to_the_task() -> None:
    for task in make().tasks("train")[:60]:
        goal = make().make_env(task).game.goal
        assert (goal.lamp_type is not None) == (task.kind == LOOK)
        assert (goal.treatment == "hot") == (task.kind == HEAT)
        assert (goal.count == 2) == (task.kind == "pick_two_obj_and_place")


def test_task_types_filter_and_leave_the_games_as_they_are() -> None:
    every = {task.task_id: task for task in make().tasks("train")}
    some = make(task_types=[LOOK, HEAT]).tasks("train")
    assert [task.task_id for task in some] == [t.task_id for t in every.values() if t.kind in (LOOK, HEAT)]
    assert {task.kind for task in some} == {LOOK, HEAT}


def test_max_steps_and_reward_reach_the_environment() -> None:
    bench = make(max_steps=30, success_reward=2.5)
    env = bench.make_env(bench.tasks("train")[0])
    env.reset()
    results = [env.step(action) for action in bench.expert(env, random.Random(0))]
    assert results[-1].success
    assert results[-1].reward == 2.5
    env = bench.make_env(bench.tasks("train")[0])
    env.reset()
    assert [env.step("zzz").done for _ in range(30)] == [False] * 29 + [True]


def test_game_seed_and_train_games_change_what_they_say() -> None:
    assert len(make(train_games=7).tasks("train")) == 7
    first = make().make_env(make().tasks("train")[0]).reset().text
    other = make(game_seed=1)
    assert other.make_env(other.tasks("train")[0]).reset().text != first


def test_fingerprint_names_source_counts_and_content() -> None:
    seen = make().fingerprint()
    assert seen["source"] == "generated"
    assert seen["tasks"] == {"train": 300, "valid_seen": 140, "valid_unseen": 134}
    assert sum(seen["kinds"]["train"].values()) == 300
    assert seen["kinds"]["valid_seen"] == {
        "pick_and_place_simple": 35, LOOK: 13, "pick_clean_then_place_in_recep": 27, HEAT: 16,
        "pick_cool_then_place_in_recep": 25, "pick_two_obj_and_place": 24,
    }  # fmt: skip
    assert json.loads(json.dumps(seen)) == seen
    assert make().fingerprint() == seen
    assert make(game_seed=1).fingerprint()["digest"] != seen["digest"]
    assert make(max_steps=20).fingerprint() == seen


def test_compiled_games_are_shared_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED_GAMES_KEPT", 3)
    bench = make()
    tasks = bench.tasks("train")
    first = bench.make_env(tasks[0]).game
    assert bench.make_env(tasks[0]).game is first
    for task in tasks[1:4]:
        bench.make_env(task)
    assert len(bench._compiled) == 3
    assert bench.make_env(tasks[0]).game is not first
    assert bench.make_env(tasks[0]).game == first


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "alfworlds"}, r"unknown benchmark 'alfworlds'; did you mean alfworld\? known: alfworld"),
        ({"task_types": ["cook"]}, r"benchmark.task_types must be some of .* got \['cook'\]"),
        ({"task_types": []}, "got none"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(**changes)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.colour: unknown key"):
        make(colour="red")


def test_unknown_split_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"benchmark\.split must be one of train, valid_seen, valid_unseen, got 'test'"
    ):
        make().tasks("test")


def test_a_split_without_games_of_the_wanted_types_is_an_error() -> None:
    with pytest.raises(DataError, match=f"no game of the task types {LOOK} in the split 'train'"):
        make(train_games=1, task_types=[LOOK]).tasks("train")


def test_foreign_tasks_and_environments_are_refused() -> None:
    bench = make()
    with pytest.raises(TypeError, match="ALFWorld benchmark"):
        bench.make_env(Task("t", "k", "train"))
    with pytest.raises(TypeError, match="AlfworldEnv"):
        next(bench.expert(object()))  # type: ignore[arg-type]


def official(root: Path, *games: str, solvable: bool = True) -> None:
    for game in games:
        folder = root / game / "trial_x"
        folder.mkdir(parents=True)
        (folder / "game.tw-pddl").write_text(json.dumps({"solvable": solvable}))


BOOK = "pick_and_place_simple-Book-None-Bed-301"


def test_official_data_is_announced(tmp_path: Path) -> None:
    official(tmp_path, f"valid_seen/{BOOK}")
    bench = make(data_dir=str(tmp_path))
    seen = bench.fingerprint()
    assert seen["source"] == "official"
    assert seen["tasks"] == {"train": 0, "valid_seen": 1, "valid_unseen": 0}
    assert seen["skipped"] == {}
    assert Counter(task.kind for task in bench.tasks("valid_seen")) == {"pick_and_place_simple": 1}


def test_a_missing_split_is_called_missing_and_the_others_are_named(tmp_path: Path) -> None:
    official(tmp_path, f"valid_seen/{BOOK}", f"valid_unseen/{BOOK}")
    bench = make(data_dir=str(tmp_path))
    with pytest.raises(DataError) as error:
        bench.tasks("train")
    assert "the split 'train' is missing; there is valid_seen (1 games), valid_unseen (1 games)" in str(error.value)
    assert "task types" not in str(error.value)
    with pytest.raises(DataError, match=f"no game of the task types {LOOK} in the split 'valid_seen'"):
        make(data_dir=str(tmp_path), task_types=[LOOK]).tasks("valid_seen")


def test_skipped_games_are_logged_and_in_the_fingerprint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    official(tmp_path, f"valid_seen/{BOOK}")
    official(tmp_path, f"valid_seen/{BOOK}-2", f"train/{BOOK}", solvable=False)
    bench = make(data_dir=str(tmp_path))
    assert bench.fingerprint()["skipped"] == {"train": {"unsolvable": 1}, "valid_seen": {"unsolvable": 1}}
    assert f"{tmp_path}: games are skipped: train: 1 unsolvable; valid_seen: 1 unsolvable" in caplog.text
    assert len(bench.tasks("valid_seen")) == 1
    with pytest.raises(DataError, match=r"no game in the split 'train' can be played \(1 unsolvable\)"):
        bench.tasks("train")
