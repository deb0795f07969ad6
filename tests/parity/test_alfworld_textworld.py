"""Our engine against the original one, command by command (needs alfworld==0.4.2 and the official games)."""

from __future__ import annotations

import json
import os
import random
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.pddl import parse_game
from empg_cli.types import Task

DATA = Path(os.environ.get("EMPG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ARCHIVE = DATA / "alfworld" / "json_2.1.1_tw-pddl.tar.xz"
textworld = pytest.importorskip(
    "textworld", reason="the original engine is not installed (pip install alfworld==0.4.2)"
)
pytestmark = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason="no official ALFWorld games; set EMPG_TEST_DATA to a folder with alfworld/*.tar.xz"
)
GAMES = 6
COMMANDS = 25


class OriginalEngine:
    """TextWorld's PDDL engine under alfworld's naming wrapper."""

    def __init__(self, path: Path) -> None:
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld.envs.pddl import PddlEnv

        argv = list(sys.argv)  # the translator of the original overwrites it
        self._env = AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)), shuffle=False)
        self._env.load(str(path))
        self._state = self._env.reset()
        sys.argv = argv

    def step(self, command: str) -> None:
        self._state, _, _ = self._env.step(command)

    def shows(self) -> tuple[str, list[str], bool]:
        return self._state.feedback, sorted(self._state.admissible_commands), bool(self._state.won)


def sampled_games() -> list[dict[str, Any]]:
    with tarfile.open(ARCHIVE) as tar:
        members = [member for member in tar.getmembers() if member.name.endswith("game.tw-pddl")]
        chosen = random.Random(0).sample(sorted(members, key=lambda member: member.name), GAMES)
        return [json.load(stream) for member in chosen if (stream := tar.extractfile(member))]


@pytest.mark.slow
def test_same_text_commands_and_victory_after_every_command(tmp_path: Path) -> None:
    rng = random.Random(1)
    for number, source in enumerate(sampled_games()):
        path = tmp_path / f"{number}.tw-pddl"
        path.write_text(json.dumps(source))
        original = OriginalEngine(path)
        ours = AlfworldEnv(Task("t", "k", "s"), parse_game(source), max_steps=200)
        opening = ours.reset()
        assert (opening.text, list(opening.actions), False) == original.shows()
        actions = opening.actions
        for _ in range(COMMANDS):
            bold = [action for action in actions if not action.startswith(("go to", "help"))]
            command = rng.choice([*bold, *bold, *actions, "put x in y"])
            result = ours.step(command)
            original.step(command)
            assert (result.text, list(result.actions), result.success) == original.shows(), ours.history
            actions = result.actions
            if result.done:
                break
