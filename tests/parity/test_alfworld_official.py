"""The official ALFWorld games in our engine. Needs the data: see EMPG_TEST_DATA below."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from empg_cli.benchmarks.alfworld.data import OfficialGames, open_games
from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import explore, read_goal
from empg_cli.benchmarks.alfworld.pddl import parse_game
from empg_cli.benchmarks.alfworld.planner import oracle_plan
from empg_cli.benchmarks.alfworld.tables import SPLITS, rules, table_bytes
from empg_cli.types import Task
from scripts.compare_alfworld_games import Game, room_of, summarize

DATA = Path(os.environ.get("EMPG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ARCHIVE = DATA / "alfworld" / "json_2.1.1_tw-pddl.tar.xz"
pytestmark = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason="no official ALFWorld games; set EMPG_TEST_DATA to a folder with alfworld/*.tar.xz"
)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> OfficialGames:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return open_games(str(ARCHIVE))


def test_counts_are_the_published_ones(official: OfficialGames) -> None:
    for split in SPLITS:
        assert Counter(game.kind for game in official.games[split]) == rules().split_kinds[split]
    assert [len(official.games[split]) for split in SPLITS] == [3553, 140, 134]
    assert official.digest == "82ad2032f2c0cc7b"


@pytest.mark.parametrize(("split", "least"), [("valid_unseen", 133), ("valid_seen", 139)])
def test_explorer_and_planner_win_official_games(official: OfficialGames, split: str, least: int) -> None:
    won = steps = 0
    for game in official.games[split]:
        compiled = game.compile()
        env = AlfworldEnv(Task(game.name, game.kind, split), compiled)
        env.reset()
        for action in oracle_plan(env):
            assert env.step(action).valid
            if env.won:  # early, where a pan lies on two burners at once: taken from one, it still counts on the other
                break
        assert env.won, game.name
        env = AlfworldEnv(Task(game.name, game.kind, split), compiled)
        for action in explore(env):
            env.step(action)
        won += env.won
        steps += env.steps
    assert won >= least
    assert steps / len(official.games[split]) < 12


def test_generated_games_play_the_official_tasks(official: OfficialGames) -> None:
    """The task folders name kind, object, movable receptacle (none), destination and room."""
    for split in SPLITS:
        folders = Counter(game.name.split("/")[1].lower() for game in official.games[split])
        assert folders == Counter(
            f"{kind}-{task.object_type}-none-{task.destination}-{task.room}"
            for kind, tasks in rules().tasks[split].items()
            for task in tasks
        )


@pytest.mark.parametrize("split", [pytest.param("train", marks=pytest.mark.slow), "valid_seen", "valid_unseen"])
def test_every_walkthrough_wins_and_the_stored_summary_is_theirs(official: OfficialGames, split: str) -> None:
    """The summary is what tests/unit/benchmarks/test_alfworld_generator.py holds the generated games against."""
    stored = json.loads((Path(__file__).parents[1] / "golden" / "alfworld_official.json").read_text())[split]
    found = summarize(won_without_a_refusal(official, split))
    assert found["games"] == len(official.games[split])
    assert {key: found[key] for key in ("games", "means", "targets")} == {
        key: stored[key] for key in ("games", "means", "targets")
    }
    assert len(found["tasks"]) == stored["distinct_tasks"]


def won_without_a_refusal(official: OfficialGames, split: str) -> Iterator[Game]:
    """Every game of the split, after the walkthrough in it, which the planner of the original engine made, has won."""
    for game in official.games[split]:
        source = json.loads(game.store.read(game.path))
        env = AlfworldEnv(Task(game.name, game.kind, split), parse_game(source))
        env.reset()
        for command in source["walkthrough"]:
            assert not env.won
            assert env.step(command).valid, (game.name, command)
        assert env.won, game.name
        assert read_goal(env.game.task) == env.game.goal
        yield game.kind, room_of(game.name), env.game


@pytest.mark.slow
def test_shipped_tables_are_what_the_script_counts(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    script = root / "scripts" / "build_alfworld_tables.py"
    subprocess.run([sys.executable, str(script), str(ARCHIVE), str(tmp_path)], check=True, capture_output=True)
    for name in ("rooms.json", "rules.json"):
        assert (tmp_path / name).read_bytes() == table_bytes(name)
