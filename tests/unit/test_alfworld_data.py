"""Official games from folders and archives, and what the reader says about bad data."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks.alfworld.data import OfficialGames, open_games
from empg_cli.benchmarks.alfworld.pddl import parse_game
from empg_cli.benchmarks.base import DataError

PROBLEM = """(define (problem p) (:init (atLocation agent1 loc_bar_0)
  (receptacleType Desk_bar_1 DeskType) (receptacleAtLocation Desk_bar_1 loc_bar_1)
  (receptacleType Bed_bar_1 BedType) (receptacleAtLocation Bed_bar_1 loc_bar_2)
  (objectType Book_bar_1 BookType) (pickupable Book_bar_1) (inReceptacle Book_bar_1 Desk_bar_1)
  (objectAtLocation Book_bar_1 loc_bar_1) (canContain BedType BookType))
 (:goal (and (exists (?r - receptacle) (exists (?o - object)
   (and (inReceptacle ?o ?r) (objectType ?o BookType) (receptacleType ?r BedType)))))))"""
GAME = {
    "pddl_domain": "(define (domain alfred))",
    "grammar": '{"task": [{"rhs": "Your task is to: put a book in bed."}]}',
    "pddl_problem": PROBLEM,
    "solvable": True,
    "walkthrough": ["go to desk 1", "take book 1 from desk 1", "go to bed 1", "move book 1 to bed 1"],
}
PLACE = "pick_and_place_simple-Book-None-Bed-301"
HEAT = "pick_heat_then_place_in_recep-Apple-None-Fridge-4"
MOVABLE = "pick_and_place_with_movable_recep-Book-Box-Bed-301"
MEMBERS = {
    f"json_2.1.1/{split}/{folder}/trial_{trial}/game.tw-pddl": json.dumps(GAME)
    for split in ("train", "valid_seen", "valid_unseen")
    for folder in (PLACE, HEAT, MOVABLE)
    for trial in ("b", "a")
} | {"json_2.1.1/valid_train/" + PLACE + "/trial_a/game.tw-pddl": "{}", "json_2.1.1/README": "hello"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "empg"


def as_folder(root: Path, members: dict[str, str]) -> Path:
    for name, text in members.items():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "data"


def as_tar(suffix: str) -> Callable[[Path, dict[str, str]], Path]:
    def write(root: Path, members: dict[str, str]) -> Path:
        path = root / f"games{suffix}"
        with tarfile.open(path, "w" + suffix.removeprefix(".tar").replace(".", ":")) as tar:
            for name, text in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
        return path

    return write


def as_zip(root: Path, members: dict[str, str]) -> Path:
    path = root / "games.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


WRITERS = {
    "folder": as_folder,
    "tar": as_tar(".tar"),
    "tar.gz": as_tar(".tar.gz"),
    "tar.xz": as_tar(".tar.xz"),
    "zip": as_zip,
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Path, dict[str, str]], Path]:
    return WRITERS[request.param]


def test_every_form_gives_the_same_games(tmp_path: Path) -> None:
    found: list[OfficialGames] = []
    for name, writer in WRITERS.items():
        (tmp_path / name).mkdir()
        found.append(open_games(str(writer(tmp_path / name, MEMBERS))))
    for games in found:
        # Two types, two trials each; the type with a movable receptacle and the split valid_train are left out.
        # Types alternate, trials are sorted.
        assert [game.name for game in games.games["train"]] == [
            f"train/{PLACE}/trial_a", f"train/{HEAT}/trial_a", f"train/{PLACE}/trial_b", f"train/{HEAT}/trial_b",
        ]  # fmt: skip
        assert [game.kind for game in games.games["valid_seen"]][:2] == [PLACE.split("-")[0], HEAT.split("-")[0]]
        assert games.digest == found[0].digest
        assert games.games["valid_unseen"][0].compile().task == "put a book in bed"


def test_digest_changes_with_the_data(tmp_path: Path) -> None:
    first = open_games(str(as_folder(tmp_path / "a", MEMBERS))).digest
    fewer = dict(list(MEMBERS.items())[1:])
    assert open_games(str(as_folder(tmp_path / "b", fewer))).digest != first


@pytest.mark.parametrize("below", ["", "json_2.1.1", "json_2.1.1/valid_seen"])
def test_root_split_parent_or_split_folder_can_be_given(tmp_path: Path, below: str) -> None:
    games = open_games(str(as_folder(tmp_path, MEMBERS) / below)).games
    assert len(games["valid_seen"]) == 4
    assert len(games["train"]) == (0 if below.endswith("seen") else 4)


def test_a_tar_is_copied_to_the_cache_once(tmp_path: Path, cache: Path) -> None:
    archive = WRITERS["tar.xz"](tmp_path, MEMBERS)
    open_games(str(archive))
    (cached,) = cache.iterdir()
    written = cached.stat().st_mtime_ns
    game = open_games(str(archive)).games["train"][0]
    assert cached.stat().st_mtime_ns == written
    assert game.compile().receptacles[0].name == "bed 1"


def test_without_a_writable_cache_the_games_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    game = open_games(str(WRITERS["tar.gz"](tmp_path, MEMBERS))).games["train"][0]
    assert game.compile().task == "put a book in bed"


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    archive = WRITERS["tar"](tmp_path, MEMBERS)
    open_games(str(archive))
    (cached,) = cache.iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    assert open_games(str(archive)).games["train"][0].compile().task == "put a book in bed"


def test_games_can_be_pickled(tmp_path: Path) -> None:
    game = open_games(str(as_zip(tmp_path, MEMBERS))).games["train"][0]
    game.compile()
    assert pickle.loads(pickle.dumps(game)).compile().task == "put a book in bed"


def changed(**keys: Any) -> str:
    return json.dumps({**GAME, **keys})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (json.dumps(GAME)[:300], "not valid JSON, it may be cut off"),
        ("", "not valid JSON"),
        ("[1, 2]", "holds a JSON list, not a game"),
        (json.dumps({k: v for k, v in GAME.items() if k != "pddl_problem"}), "key 'pddl_problem' is missing"),
        (json.dumps({k: v for k, v in GAME.items() if k != "grammar"}), "key 'grammar' is missing"),
        (json.dumps({k: v for k, v in GAME.items() if k != "solvable"}), r"not marked solvable \(None\)"),
        (changed(solvable=False), r"not marked solvable \(False\)"),
        (changed(grammar="{}"), "no \"Your task is to: ...\" line"),
        (changed(pddl_problem="(define)"), r"no \(:init ...\) followed by a \(:goal ...\)"),
        (changed(pddl_problem="(:init (atLocation a loc_bar_1)) (:goal (x ?y))"), "none of ALFWorld's six task types"),
        (changed(pddl_problem="(:init (a b)) " + PROBLEM[PROBLEM.index("(:goal") :]), "lacks the agent's location"),
        (changed(pddl_problem=PROBLEM.replace("Book_bar_1 Desk_bar_1)", "Book_bar_1 X)")), "x, which stands nowhere"),
    ],
)  # fmt: skip
def test_a_broken_game_is_named_with_what_to_do(
    tmp_path: Path, write: Callable[[Path, dict[str, str]], Path], content: str, complaint: str
) -> None:
    member = f"json_2.1.1/train/{PLACE}/trial_a/game.tw-pddl"
    games = open_games(str(write(tmp_path, {**MEMBERS, member: content}))).games["train"]
    with pytest.raises(DataError, match=complaint) as error:
        games[0].compile()
    assert member in str(error.value)
    assert "data_dir=null" in str(error.value)
    assert games[1].compile().task == "put a book in bed"


def test_a_missing_location_says_where_to_point(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist. Point benchmark.data_dir"):
        open_games(str(tmp_path / "nowhere"))


def test_a_folder_without_games_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no <split>/<task>/<trial>/game\.tw-pddl"):
        open_games(str(tmp_path))


def test_another_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="no folder, zip or tar archive"):
        open_games(str(tmp_path / "notes.txt"))


def test_two_data_versions_are_not_mixed(tmp_path: Path, write: Callable[[Path, dict[str, str]], Path]) -> None:
    both = {**MEMBERS, **{name.replace("2.1.1", "2.1.2"): text for name, text in MEMBERS.items()}}
    with pytest.raises(DataError, match=r"several data versions: train lies in .*json_2.1.1, .*json_2.1.2"):
        open_games(str(write(tmp_path, both)))


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("name", ["../{}", "/{}", "json_2.1.1/../../{}"])
def test_members_that_point_outside_are_refused(tmp_path: Path, form: str, name: str) -> None:
    outside = name.format(f"train/{PLACE}/trial_a/game.tw-pddl")
    archive = WRITERS[form](tmp_path, {**MEMBERS, outside: "{}"})
    with pytest.raises(DataError, match="points outside"):
        open_games(str(archive))


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "games.tar", "w") as tar:
        info = tarfile.TarInfo(f"train/{PLACE}/trial_a/game.tw-pddl")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match="is a link"):
        open_games(str(tmp_path / "games.tar"))


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_truncated_archive_is_named_and_leaves_no_cache(tmp_path: Path, cache: Path, form: str, part: float) -> None:
    archive = WRITERS[form](tmp_path, MEMBERS)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DataError, match=r"games.*cut off"):
        open_games(str(archive))
    assert not cache.exists() or not list(cache.iterdir())


def test_broken_bytes_inside_a_zip_are_reported_when_the_game_is_read(tmp_path: Path) -> None:
    archive = as_zip(tmp_path, MEMBERS)
    content = bytearray(archive.read_bytes())
    start = content.index(b"trial_b/game.tw-pddl") + 60
    content[start : start + 40] = bytes(40)
    archive.write_bytes(content)
    damaged = next(
        game for game in open_games(str(archive)).games["train"] if game.path.endswith("trial_b/game.tw-pddl")
    )
    with pytest.raises(DataError, match="cannot be read"):
        damaged.compile()


def test_walkthrough_of_the_example_wins() -> None:
    from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
    from empg_cli.types import Task

    env = AlfworldEnv(Task("t", "k", "s"), parse_game(GAME))
    env.reset()
    assert [env.step(command).success for command in GAME["walkthrough"]] == [False, False, False, True]  # type: ignore[attr-defined]
