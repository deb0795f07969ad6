"""Official games from folders and archives, and what the reader says about bad data."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks.alfworld.data import OfficialGames, open_games
from empg_cli.benchmarks.alfworld.pddl import parse_game
from empg_cli.benchmarks.base import DataError
from tests.support.games import GAME, HEAT, PLACE, PROBLEM

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


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_one_bit_of_a_game_changes_the_digest(tmp_path: Path, form: str) -> None:
    """Neither form has a checksum of its own: `1` (0x31) becomes `0` in one game of the same size."""
    source = WRITERS[form](tmp_path, MEMBERS)
    first = open_games(str(source)).digest
    game = source / next(iter(MEMBERS)) if source.is_dir() else source
    content = game.read_bytes()
    game.write_bytes(content.replace(b"agent1", b"agent0", 1))
    assert len(game.read_bytes()) == len(content)
    assert open_games(str(source)).digest != first


def test_digest_is_that_of_paths_and_contents(tmp_path: Path) -> None:
    name = f"train/{PLACE}/trial_a/game.tw-pddl"
    content = json.dumps(GAME).encode()
    line = f"{name} {hashlib.sha256(content).hexdigest()}\n"
    assert (
        open_games(str(as_zip(tmp_path, {f"any/{name}": content.decode()}))).digest
        == (hashlib.sha256(line.encode()).hexdigest()[:16])
    )


def test_a_game_that_changes_after_it_was_listed_is_not_played(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, MEMBERS)
    game = open_games(str(folder)).games["train"][0]
    (tmp_path / "data" / f"json_2.1.1/{game.name}/game.tw-pddl").write_text(changed(walkthrough=[]))
    with pytest.raises(DataError, match="has changed since the games were listed"):
        game.compile()


PACKED = {"tar.gz": gzip.decompress, "tar.bz2": bz2.decompress, "tar.xz": lzma.decompress}


@pytest.mark.parametrize("form", [*PACKED, "zip"])
def test_a_flipped_bit_is_never_played(tmp_path: Path, cache: Path, form: str) -> None:
    """40 places all over the archive, its checksums included: refused, or the very games that were packed (a bit of
    a date or of a stored file name). What is refused is not cached either."""
    archive = (as_zip if form == "zip" else as_tar("." + form))(tmp_path, MEMBERS)
    whole = archive.read_bytes()
    digest = open_games(str(archive)).digest
    places = random.Random(5)
    refused = 0
    for at in [places.randrange(len(whole)) for _ in range(36)] + [-1, -5, -8, 3]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << places.randrange(8)
        archive.write_bytes(damaged)
        try:
            games = open_games(str(archive))
        except DataError:
            refused += 1
            continue
        assert games.digest == digest, at
        assert all(game.compile().task == "put a book in bed" for game in games.games["train"])
    assert refused >= 20
    if form != "zip":
        assert len(list(cache.iterdir())) == 41 - refused


@pytest.mark.parametrize("form", PACKED)
def test_the_checksum_at_the_end_is_read(tmp_path: Path, cache: Path, form: str) -> None:
    """Enough follows the last game that tarfile never comes to the checksum: it stops at the mark of the end."""
    path = tmp_path / f"games.{form}"
    with tarfile.open(path, "w:" + form.removeprefix("tar.")) as tar:
        info = tarfile.TarInfo(next(iter(MEMBERS)))
        info.size = len(json.dumps(GAME))
        tar.addfile(info, io.BytesIO(json.dumps(GAME).encode()))
        tar.fileobj.write(bytes(1024) + random.Random(0).randbytes(1 << 20))  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # gzip: its CRC; bzip2: its CRC; xz: its footer
    path.write_bytes(content)
    with pytest.raises(DataError, match="cut off or damaged"):
        open_games(str(path))
    assert not list(cache.glob("*"))


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
    whole = cached.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:100], bytes(flipped)):
        cached.write_bytes(damaged)
        assert open_games(str(archive)).games["train"][0].compile().task == "put a book in bed"
        assert [path.read_bytes() for path in cache.iterdir()] == [whole]


def test_games_can_be_pickled(tmp_path: Path) -> None:
    game = open_games(str(as_zip(tmp_path, MEMBERS))).games["train"][0]
    game.compile()
    assert pickle.loads(pickle.dumps(game)).compile().task == "put a book in bed"


def changed(**keys: Any) -> str:
    return json.dumps({**GAME, **keys})


def put(before: str, after: str) -> str:
    """A game with a change in its PDDL."""
    assert before in PROBLEM
    return changed(pddl_problem=PROBLEM.replace(before, after))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (json.dumps(GAME)[:-3], "not valid JSON"),
        (json.dumps({k: v for k, v in GAME.items() if k != "pddl_problem"}), "key 'pddl_problem' is missing"),
        (json.dumps({k: v for k, v in GAME.items() if k != "grammar"}), "key 'grammar' is missing"),
        (changed(grammar="{}"), "no \"Your task is to: ...\" line"),
        (changed(pddl_problem="(define)"), r"no \(:init ...\) followed by a \(:goal ...\)"),
        (changed(pddl_problem="(:init (atLocation a loc_bar_1)) (:goal (x ?y))"), "none of ALFWorld's six task types"),
        (changed(pddl_problem="(:init (a b)) " + PROBLEM[PROBLEM.index("(:goal") :]), "lacks the agent's location"),
        (changed(pddl_problem=PROBLEM.replace("Book_bar_1 Desk_bar_1)", "Book_bar_1 X)")), "x, which stands nowhere"),
        (put("(pickupable Book_bar_1)", "(pickupable)"), r"line 4: \(pickupable\) needs 1"),
        (put("(pickupable Book_bar_1)", "( )"), r"line 4: \( \) needs 1"),
        (put("?o BookType) (rec", "?o) (rec"), r"line 7: \(objecttype \?o\) needs 2"),
        (put("Desk_bar_1 DeskType", "Desk_bar_1 DaskType"), "'desk 1' has the type 'dask'"),
        (put("(inReceptacle Book_bar_1", "(onReceptacle Book_bar_1"), "cannot be won: 0 book"),
        (put("Book_bar_1 Desk_bar_1", "Book_bar_1 Bed_bar_1"), "won before it begins"),
        (changed(grammar='"Your task is to: put a boo+ in bed."'), r"not an ALFWorld task: 'put a boo\+ in bed'"),
        (changed(grammar='"Your task is to: put a book in bdd."'), "the words ask for 'put a book in bdd'"),
        (json.dumps(GAME)[:-1] + ', "x": ' + "[" * 2000 + "}", "is nested too deep"),
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


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (json.dumps(GAME)[:300], r"not valid JSON .*It may be cut off"),
        ("", "not valid JSON"),
        ("[1, 2]", "holds a JSON list, not a game"),
    ],
)
def test_a_file_that_is_no_game_is_named_at_the_start(
    tmp_path: Path, write: Callable[[Path, dict[str, str]], Path], content: str, complaint: str
) -> None:
    member = f"json_2.1.1/train/{PLACE}/trial_a/game.tw-pddl"
    with pytest.raises(DataError, match=complaint) as error:
        open_games(str(write(tmp_path, {**MEMBERS, member: content})))
    assert member in str(error.value)
    assert "data_dir=null" in str(error.value)


SLICED = PLACE.replace("Book", "AppleSliced")
UNPLAYED = {
    f"json_2.1.1/train/{PLACE}/trial_u1/game.tw-pddl": {**GAME, "solvable": False},
    f"json_2.1.1/train/{HEAT}/trial_u2/game.tw-pddl": {**GAME, "solvable": None},
    f"json_2.1.1/train/{HEAT}/trial_m/game.tw-pddl": {k: v for k, v in GAME.items() if k != "solvable"},
    f"json_2.1.1/valid_seen/{SLICED}/trial_s/game.tw-pddl": GAME,
}


def test_what_alfworld_passes_over_is_skipped_and_counted(
    tmp_path: Path, write: Callable[[Path, dict[str, str]], Path]
) -> None:
    """The rules of `AlfredTWEnv.collect_game_files` (alfworld 0.4.2), by hand; MEMBERS has two movable trials a
    split."""
    games = open_games(str(write(tmp_path, MEMBERS | {name: json.dumps(game) for name, game in UNPLAYED.items()})))
    assert games.skipped == {
        "train": {"movable": 2, "unsolvable": 2, "unmarked": 1},
        "valid_seen": {"movable": 2, "sliced": 1},
        "valid_unseen": {"movable": 2},
    }
    assert {split: len(found) for split, found in games.games.items()} == dict.fromkeys(games.games, 4)
    (tmp_path / "plain").mkdir()
    assert games.digest == open_games(str(write(tmp_path / "plain", MEMBERS))).digest


def test_a_folder_with_nothing_but_unplayable_games_says_so(tmp_path: Path) -> None:
    unsolvable = {name: json.dumps({**GAME, "solvable": False}) for name in list(MEMBERS)[:2]}
    with pytest.raises(DataError, match=r"that can be played \(skipped: \{'train': \{'unsolvable': 2\}\}\)"):
        open_games(str(as_folder(tmp_path, unsolvable)))


@pytest.mark.parametrize("level", ["root", "json_2.1.1", "split", "task", "trial", "file"])
def test_linked_folders_and_files_are_followed(tmp_path: Path, level: str) -> None:
    real = as_folder(tmp_path / "real", MEMBERS)
    depth = ["root", "json_2.1.1", "split", "task", "trial", "file"].index(level)
    data = tmp_path / "linked"
    for name in MEMBERS:
        parts = name.split("/")[:depth]
        link = data.joinpath(*parts)
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real.joinpath(*parts))
    linked, plain = open_games(str(data)), open_games(str(real))
    assert linked.digest == plain.digest
    assert linked.games["train"][0].compile() == plain.games["train"][0].compile()


def test_a_link_with_another_name_to_one_split_is_that_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = as_folder(tmp_path, MEMBERS) / "json_2.1.1" / "valid_seen"
    (tmp_path / "mine").symlink_to(split)
    assert len(open_games(str(tmp_path / "mine")).games["valid_seen"]) == 4
    monkeypatch.chdir(split)
    assert len(open_games(".").games["valid_seen"]) == 4


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    data = as_folder(tmp_path, MEMBERS)
    plain = open_games(str(data)).digest
    for place in (
        "",
        "json_2.1.1",
        "json_2.1.1/train",
        f"json_2.1.1/train/{PLACE}",
        f"json_2.1.1/train/{PLACE}/trial_a",
    ):
        for number in range(3):
            (data / place / f"loop{number}").symlink_to(data)
            (data / place / f"up{number}").symlink_to("..")
    (data / "again").symlink_to(data / "json_2.1.1")
    (data / "self").symlink_to("self")
    games = open_games(str(data))
    assert games.digest == plain
    assert {split: len(found) for split, found in games.games.items()} == dict.fromkeys(games.games, 4)


def test_one_folder_may_be_two_splits(tmp_path: Path) -> None:
    """Training on the games of the evaluation, for a first try: the split is the name of the link."""
    data = as_folder(tmp_path, {name: text for name, text in MEMBERS.items() if "/valid_seen/" in name})
    (data / "json_2.1.1" / "train").symlink_to("valid_seen")
    assert {split: len(found) for split, found in open_games(str(data)).games.items()} == {
        "train": 4, "valid_seen": 4, "valid_unseen": 0,
    }  # fmt: skip


def test_a_dangling_link_is_named(tmp_path: Path) -> None:
    data = as_folder(tmp_path, MEMBERS)
    game = data / f"json_2.1.1/train/{PLACE}/trial_a/game.tw-pddl"
    game.unlink()
    game.symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"trial_a/game\.tw-pddl: cannot be read"):
        open_games(str(data))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    data = as_folder(tmp_path, MEMBERS)
    closed = data / "json_2.1.1" / "train" / PLACE
    closed.chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be listed"):
            open_games(str(data))
    finally:
        closed.chmod(0o755)


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


def test_broken_bytes_inside_a_zip_are_reported(tmp_path: Path) -> None:
    archive = as_zip(tmp_path, MEMBERS)
    content = bytearray(archive.read_bytes())
    start = content.index(b"trial_b/game.tw-pddl") + 60
    content[start : start + 40] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"trial_b/game\.tw-pddl: broken"):
        open_games(str(archive))


def test_a_few_broken_games_are_skipped_and_named(tmp_path: Path) -> None:
    many = {
        f"data/train/{PLACE}/trial_{number:02}/game.tw-pddl": "{" if number == 7 else json.dumps(GAME)
        for number in range(20)
    }
    games = open_games(str(as_folder(tmp_path, many)))
    assert (len(games.games["train"]), games.skipped) == (19, {"train": {"broken": 1}})
    assert f"{PLACE}/trial_07/game.tw-pddl: not valid JSON" in str(games.first_broken)
    (tmp_path / "data" / f"data/train/{PLACE}/trial_08/game.tw-pddl").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"trial_07/game\.tw-pddl: not valid JSON.*\n  2 of 20 games are broken"):
        open_games(str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"place_simple", b"pl!ce_simple"), (b"/train/", b"/traim/"), (b"game.tw-pddl", b"game.tw-pdd|")],
)
def test_a_name_changed_in_a_zip_hides_no_game(tmp_path: Path, before: bytes, after: bytes) -> None:
    """Its two copies are compared, of games that are not played too."""
    archive = as_zip(tmp_path, MEMBERS)
    content = archive.read_bytes()
    directory = content.rindex(before)
    archive.write_bytes(content[:directory] + after + content[directory + len(after) :])
    with pytest.raises(DataError, match="differ"):
        open_games(str(archive))


def test_a_pipe_is_no_game_and_nothing_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / f"train/{PLACE}/trial/game.tw-pddl"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"trial/game\.tw-pddl: no file"):
        open_games(str(tmp_path))


def tar_of(path: Path, size: int, kind: bytes, behind: int) -> None:
    info = tarfile.TarInfo(f"train/{PLACE}/trial/game.tw-pddl")
    info.size, info.type = size, kind
    with gzip.open(path, "wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(behind))


@pytest.mark.parametrize(
    ("size", "kind", "said"),
    [
        (1 << 40, tarfile.REGTYPE, "1,099,511,627,776 bytes are no game"),
        (1 << 40, tarfile.GNUTYPE_SPARSE, "more than 200 times its size"),
        (-1024, tarfile.REGTYPE, "less than no bytes"),
        (1 << 34, tarfile.GNUTYPE_LONGNAME, "more than 200 times its size|more memory than there is|broken"),
        (1 << 34, tarfile.XHDTYPE, "more than 200 times its size|more memory than there is|broken"),
    ],
)
def test_what_a_tar_says_of_sizes_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, kind: bytes, said: str
) -> None:
    monkeypatch.setattr("empg_cli.reading.streams.FREE_BYTES", 1 << 20)
    tar_of(tmp_path / "games.tar.gz", size, kind, 4 << 20)
    with pytest.raises(DataError, match=said):
        open_games(str(tmp_path / "games.tar.gz"))


def test_a_zip_of_zeros_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("empg_cli.reading.streams.FREE_BYTES", 1 << 20)
    archive = as_zip(tmp_path, {**MEMBERS, "json_2.1.1/README": "a" * (8 << 20)})
    with pytest.raises(DataError, match="more than 200 times its size"):
        open_games(str(archive))
    archive = as_zip(tmp_path, {f"train/{PLACE}/trial/game.tw-pddl": "{" + " " * (5 << 20)})
    monkeypatch.setattr("empg_cli.reading.streams.FREE_BYTES", 1 << 30)
    with pytest.raises(DataError, match="bytes are no game"):
        open_games(str(archive))


def test_walkthrough_of_the_example_wins() -> None:
    from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
    from empg_cli.types import Task

    env = AlfworldEnv(Task("t", "k", "s"), parse_game(GAME))
    env.reset()
    assert [env.step(command).success for command in GAME["walkthrough"]] == [False, False, False, True]  # type: ignore[attr-defined]
