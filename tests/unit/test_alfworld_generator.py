"""Generated games: reproducible everywhere, with the statistics of the official ones."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import read_goal
from empg_cli.benchmarks.alfworld.game import CompiledGame
from empg_cli.benchmarks.alfworld.generator import generate, kind_of
from empg_cli.benchmarks.alfworld.tables import KINDS, SPLITS, interleaved, room_numbers, rules
from empg_cli.types import Task

SRC = Path(__file__).parents[2] / "src"
DIGEST_OF_90_GAMES = "a9a7e8bf8db17d5c"
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


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_statistics_are_those_of_the_official_train_split() -> None:
    """Official: 31.5 objects, 23.7 receptacles of which 11.1 openable, 25 % of objects in closed places, 2.2 copies
    of the target, 6 % of games with every copy out of sight, 27 admissible commands (alfworld.md, sections 3 and 6)."""
    games = sample("train", 1500)
    openable = [[game.receptacles[thing.receptacles[0]].openable for thing in game.things] for game in games]
    assert mean([len(game.things) for game in games]) == pytest.approx(31.5, abs=2)
    assert mean([len(game.receptacles) for game in games]) == pytest.approx(23.7, abs=1.5)
    assert mean([sum(r.openable for r in game.receptacles) for game in games]) == pytest.approx(11.1, abs=1.5)
    assert sum(map(sum, openable)) / sum(map(len, openable)) == pytest.approx(0.25, abs=0.05)
    assert mean([len(game.targets) for game in games]) == pytest.approx(2.2, abs=0.2)
    hidden = [all(openable[i][o] for o in game.targets) for i, game in enumerate(games)]
    assert mean([float(h) for h in hidden]) == pytest.approx(0.06, abs=0.06)
    actions = [len(AlfworldEnv(Task("t", "k", "s"), game).reset().actions) for game in games[:300]]
    assert mean([float(n) for n in actions]) == pytest.approx(27, abs=3)


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


def test_objects_lie_where_such_objects_may_lie() -> None:
    for game in sample("train", 300):
        for thing in game.things:
            (home,) = thing.receptacles
            assert game.receptacles[home].type in rules().objects[thing.type].places
            assert thing.places == (game.receptacles[home].place,)


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
    assert room_numbers("valid_seen") == room_numbers("train")
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
