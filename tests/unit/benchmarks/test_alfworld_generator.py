"""Generated games: reproducible everywhere, with the tasks and the statistics of the official ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import read_goal
from empg_cli.benchmarks.alfworld.game import CompiledGame
from empg_cli.benchmarks.alfworld.generator import generate, kind_of, task_of
from empg_cli.benchmarks.alfworld.tables import KINDS, SPLITS, homes, interleaved, most_at_once, room_numbers, rules
from empg_cli.types import Task
from scripts.compare_alfworld_games import generated_games, summarize, table, total_variation

SRC = Path(__file__).parents[3] / "src"
OFFICIAL = json.loads((Path(__file__).parents[2] / "golden" / "alfworld_official.json").read_text())
"""What `scripts/compare_alfworld_games.py --official ... --write` counted in the official games."""

SIZES = {"train": 3553, "valid_seen": 140, "valid_unseen": 134}
DIGEST_OF_90_GAMES = "a7c2cf6f9cda648e"
"""Pins the games: a change must raise generator.VERSION, because results on generated games stop being comparable."""


def describe(game: CompiledGame) -> str:
    lying = [(thing.name, [game.receptacles[r].name for r in thing.receptacles]) for thing in game.things]
    return f"{game.task} | {game.room.text} | {lying}"


def digest_of_games() -> str:
    text = "\n".join(describe(generate(split, seed, i)) for split in SPLITS for seed in (0, 1) for i in range(15))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_games_are_the_same_in_every_process() -> None:
    """Two processes with different hash seeds agree with the digest pinned here."""
    here = Path(__file__)
    code = f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as t; print(t.digest_of_games())"
    for hash_seed in ("1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(SRC)}
        out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert out.stdout.strip() == DIGEST_OF_90_GAMES
    assert digest_of_games() == DIGEST_OF_90_GAMES


def test_split_seed_and_index_each_change_the_game() -> None:
    games = {
        describe(generate(split, seed, i)) for split in ("train", "valid_seen") for seed in (0, 1) for i in range(50)
    }
    assert len(games) == 200


def sample(split: str, n: int) -> list[CompiledGame]:
    return [generate(split, 11, index) for index in range(n)]


def task_key(split: str, index: int, game: CompiledGame) -> tuple[object, ...]:
    """(kind, object, destination, room) as a player could tell them, from the game alone."""
    goal = game.goal
    furniture = tuple((r.name, r.place, r.openable) for r in game.receptacles)
    return kind_of(split, index), goal.object_type, goal.receptacle_type or goal.lamp_type, furniture


@pytest.fixture(scope="module")
def tasks_of_games() -> dict[str, Counter[tuple[object, ...]]]:
    """The tasks of as many games as the official splits have."""
    return {
        split: Counter(task_key(split, index, generate(split, 0, index)) for index in range(size))
        for split, size in SIZES.items()
    }


def test_splits_share_tasks_as_the_official_ones_do(tasks_of_games: dict[str, Counter[tuple[object, ...]]]) -> None:
    """Official: 1,465, 137 and 47 distinct tasks; 137 of the 140 games of valid_seen play a task of train, none of
    valid_unseen does."""
    assert {split: len(tasks) for split, tasks in tasks_of_games.items()} == {
        split: OFFICIAL[split]["distinct_tasks"] for split in SPLITS
    }
    train = tasks_of_games["train"]
    assert sum(n for task, n in tasks_of_games["valid_seen"].items() if task in train) == 137
    assert OFFICIAL["valid_seen"]["also_in_train"] == round(137 / 140, 4)
    assert not tasks_of_games["valid_unseen"].keys() & train.keys()


def test_target_types_are_as_frequent_as_officially(tasks_of_games: dict[str, Counter[tuple[object, ...]]]) -> None:
    for split, tasks in tasks_of_games.items():
        targets: Counter[str] = Counter()
        for (_, object_type, *_), n in tasks.items():
            targets[str(object_type)] += n
        assert total_variation(targets, OFFICIAL[split]["targets"]) < 0.1


def test_total_variation_by_hand() -> None:
    """(3/4, 1/4, 0) against (1/2, 0, 1/2): half of 1/4 + 1/4 + 1/2."""
    assert total_variation({"a": 3, "b": 1}, {"a": 5, "c": 5}) == pytest.approx(0.5)


TOLERANCES = {
    "receptacles": 0.5,
    "objects": 1.0,
    "targets": 0.25,
    "hidden_objects": 0.02,
    "hidden_targets": 0.03,
    "empty_receptacles": 0.025,
    "planner_steps": 0.3,
    "expert_steps": 0.8,
    "expert_wins": 0.01,
}
"""About twice the standard error of the means below; officially an expert takes 7.4 to 8.3 steps."""


@pytest.mark.parametrize("split", SPLITS)
def test_means_are_those_of_the_official_split(split: str) -> None:
    games = [game for seed in range(1 if split == "train" else 4) for game in generated_games(split, seed, limit=500)]
    means = summarize(games)["means"]
    official = OFFICIAL[split]["means"]
    assert means.keys() == TOLERANCES.keys()
    for name, tolerance in TOLERANCES.items():
        assert means[name] == pytest.approx(official[name], abs=tolerance), name


def test_comparison_shows_both_sides_or_the_generated_one() -> None:
    both, alone = table(OFFICIAL, OFFICIAL), table(None, OFFICIAL)
    assert "| empty receptacles, share | 43.1% | 43.1% | 43.2% | 43.2% | 30.0% | 30.0% |" in both
    assert "| games whose task also is in train | - | - | 98% | 98% | 0% | 0% |" in both
    assert "| total variation of target types | - | 0.00 | - | 0.00 | - | 0.00 |" in both
    assert "| empty receptacles, share | - | 43.1% | - | 43.2% | - | 30.0% |" in alone
    assert "total variation" not in alone


@pytest.mark.parametrize("split", SPLITS)
def test_every_cycle_plays_each_official_task_as_often(split: str) -> None:
    size = SIZES[split]
    official = Counter((kind, *task) for kind, tasks in rules().tasks[split].items() for task in tasks)
    orders = []
    for seed, start in ((0, 0), (0, size), (1, 0)):
        games = [(kind_of(split, i), *task_of(split, seed, i)) for i in range(start, start + size)]
        assert Counter(games) == official
        orders.append(games)
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("split", SPLITS)
def test_games_can_be_played_and_are_not_won_yet(split: str) -> None:
    for index, game in enumerate(sample(split, 400)):
        env = AlfworldEnv(Task("t", "k", split), game)
        assert not env.reset().text.count("nothing")
        assert not env.step("look").success
        goal, kind = game.goal, kind_of(split, index)
        assert read_goal(game.task) == goal
        assert len(game.targets) >= goal.count
        assert all("pickupable" in game.things[o].traits for o in game.targets)
        if goal.lamp_type:
            assert kind == "look_at_obj_in_light"
            assert game.goal_lamps
        else:
            assert (goal.receptacle_type, goal.object_type) in game.can_contain
        if goal.treatment is None and goal.receptacle_type:
            # As officially: no copy starts where it should go.
            homes = {r for o in game.targets for r in game.things[o].receptacles}
            assert homes.isdisjoint(game.goal_receptacles)


@pytest.mark.parametrize("split", SPLITS)
def test_objects_lie_where_such_objects_lay_in_official_games_of_the_room(split: str) -> None:
    crowded = receptacles = 0
    for index, game in enumerate(sample(split, 130)):
        number = task_of(split, 11, index).room
        for thing in game.things:
            (home,) = thing.receptacles
            assert home in dict(homes(number)[thing.type])
            assert thing.places == (game.receptacles[home].place,)
        load = Counter(thing.receptacles[0] for thing in game.things)
        crowded += sum(load[r] > most for r, most in enumerate(most_at_once(number)))
        receptacles += len(game.receptacles)
    assert crowded <= 0.01 * receptacles  # only where every home of a type is full


def test_names_are_unique_and_run_downward_in_lists() -> None:
    for game in sample("valid_unseen", 60):
        for names in ([thing.name for thing in game.things], [r.name for r in game.receptacles]):
            assert len(set(names)) == len(names)
            last: dict[str, int] = {}
            for name in names:
                kind, number = name.split(" ")
                assert int(number) == last.get(kind, int(number) + 1) - 1
                last[kind] = int(number)
            assert set(last.values()) == {1}


def test_unseen_rooms_are_the_four_official_ones() -> None:
    assert room_numbers("valid_unseen") == (10, 219, 308, 424)
    assert len(room_numbers("train")) == 108
    assert set(room_numbers("valid_seen")) < set(room_numbers("train"))
    assert not set(room_numbers("train")) & set(room_numbers("valid_unseen"))


@pytest.mark.parametrize(("split", "size"), [("train", 3553), ("valid_seen", 140), ("valid_unseen", 134)])
def test_kinds_come_in_official_numbers_and_fair_prefixes(split: str, size: int) -> None:
    official = rules().split_kinds[split]
    assert sum(official.values()) == size
    assert Counter(kind_of(split, index) for index in range(size)) == official
    for prefix in (6, 32, 64, 100):
        counts = Counter(kind_of(split, index) for index in range(prefix))
        assert all(abs(counts[kind] - prefix * official[kind] / size) <= 2 for kind in KINDS)
    assert kind_of(split, size) == kind_of(split, 0)


def test_interleaving_by_hand() -> None:
    """Credits (a 3, b 1): 3,1 -> a; 2,2 -> a (first of equals); 1,3 -> b; 4,0 -> a."""
    assert interleaved({"a": 3, "b": 1}) == ("a", "a", "b", "a")
