"""`empg data fetch` and `empg data verify`, against a server of this machine that holds a small official set."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from empg_cli.benchmarks.alfworld import published as alfworld
from empg_cli.benchmarks.alfworld.data import open_games
from empg_cli.benchmarks.deepsearch.official import published as deepsearch
from empg_cli.benchmarks.published import PublishedFile, survey
from empg_cli.benchmarks.webshop import published as webshop
from empg_cli.config import load
from empg_cli.config.benchmarks import Alfworld
from empg_cli.services import download
from tests.e2e.conftest import Empg
from tests.support.disks import files_end_at
from tests.support.files import FileServer
from tests.support.games import GAME, PLACE
from tests.support.server import FakeServer, Reply


def archive(games: dict[str, str] | None = None) -> bytes:
    written = io.BytesIO()
    members = games or {
        f"json_2.1.1/{split}/{PLACE}/trial_1/game.tw-pddl": json.dumps(GAME) for split in alfworld.OFFICIAL
    }
    with zipfile.ZipFile(written, "w") as packed:
        for name, text in members.items():
            packed.writestr(name, text)
        packed.writestr("json_2.1.1/filler", os.urandom(400_000))
    return written.getvalue()


GAMES = archive()
DIGEST = hashlib.sha256(GAMES).hexdigest()


@pytest.fixture(autouse=True)
def small_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official set of ALFWorld has a game in each split."""
    of = PublishedFile("json_2.1.3_tw-pddl.zip", "http://127.0.0.1:9/games.zip", "games", len(GAMES), DIGEST)
    monkeypatch.setattr(alfworld, "GAMES", of)
    monkeypatch.setattr(alfworld, "OFFICIAL", dict.fromkeys(alfworld.OFFICIAL, 1))
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.0)
    for name in ("ALFWORLD_DATA", "WEBSHOP_DATA", "DEEPSEARCH_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    started = FakeServer(FileServer(GAMES))
    yield started
    started.close()


def flat(text: str) -> str:
    return " ".join(text.split())


# --- fetch ---


def test_an_official_archive_is_fetched_counted_and_named(empg: Empg, server: FakeServer) -> None:
    done = empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}/")
    assert Path("data/json_2.1.3_tw-pddl.zip").read_bytes() == GAMES
    assert [path.name for path in Path("data").iterdir()] == ["json_2.1.3_tw-pddl.zip"]
    assert server.requests[0].path == "/json_2.1.3_tw-pddl.zip"
    assert done.stdout.splitlines()[-1] == "benchmark=alfworld benchmark.data_dir=data/json_2.1.3_tw-pddl.zip"
    assert {
        split: len(games) for split, games in open_games("data").games.items()
    } == alfworld.OFFICIAL  # the folder, too
    assert "games in valid_unseen" in done.stdout and f"sha256 {DIGEST}" in done.stderr
    empg("data", "fetch", "alfworld", "data_dir=data")  # nothing is asked for again
    assert len(server.requests) == 1


def test_a_cut_line_and_a_lost_process_cost_nothing(empg: Empg, server: FakeServer) -> None:
    server.handler.cuts = [200_000, 0, 0, 0, 0]  # type: ignore[attr-defined]
    cut = empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}", code=2)
    assert "was not fetched" in cut.stderr and "place it as data/json_2.1.3_tw-pddl.zip" in cut.stderr
    assert Path("data/json_2.1.3_tw-pddl.zip.part").stat().st_size == 200_000
    server.handler.cuts = []  # type: ignore[attr-defined]
    empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}")
    assert server.requests[-1].headers["range"] == "bytes=200000-"


def test_another_file_of_that_name_is_not_written_over(empg: Empg, server: FakeServer) -> None:
    Path("data").mkdir()
    Path("data/json_2.1.3_tw-pddl.zip").write_bytes(b"mine")
    refused = empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}", code=2)
    assert "is another file than the official one (4 bytes" in flat(refused.stderr)
    assert Path("data/json_2.1.3_tw-pddl.zip").read_bytes() == b"mine" and not server.requests


def test_another_file_from_the_server_is_refused(empg: Empg, server: FakeServer) -> None:
    server.handler.content = bytes(reversed(GAMES))  # type: ignore[attr-defined]
    refused = empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}", code=2)
    assert f"not {DIGEST}" in flat(refused.stderr) and not Path("data").exists()


def test_without_a_network_it_says_what_to_get_where(empg: Empg) -> None:
    refused = empg("data", "fetch", "alfworld", "data_dir=data", code=2)  # nobody listens on port 9
    said = refused.stderr
    assert "http://127.0.0.1:9/games.zip" in said and f"{len(GAMES):,} bytes" in said and DIGEST in said
    assert "place it as data/json_2.1.3_tw-pddl.zip" in said and "data verify alfworld data_dir=data" in said
    assert "Traceback" not in said


def test_what_google_drive_holds_is_the_users_to_fetch(empg: Empg) -> None:
    refused = empg("data", "fetch", "webshop", "data_dir=data", code=2)
    for file in webshop.SETS["small"]:
        assert file.address in refused.stderr and f"place it as data/{file.name}" in refused.stderr
    assert refused.stderr.count("error:") == 1


def test_a_folder_with_a_blank_in_its_name_is_quoted(empg: Empg, server: FakeServer) -> None:
    refused = empg("data", "fetch", "alfworld", "data_dir=my data", code=2)
    assert "place it as 'my data/json_2.1.3_tw-pddl.zip'" in flat(refused.stderr)
    assert "data verify alfworld 'data_dir=my data'" in flat(refused.stderr)
    done = empg("data", "fetch", "alfworld", "data_dir=my data", f"mirror={server.url}")
    benchmark = load(shlex.split(done.stdout.splitlines()[-1]), "eval").benchmark
    assert isinstance(benchmark, Alfworld) and benchmark.data_dir == "my data/json_2.1.3_tw-pddl.zip"


def test_the_archive_is_no_folder_to_fetch_into(empg: Empg) -> None:
    Path("data").mkdir()
    Path("data/json_2.1.3_tw-pddl.zip").write_bytes(GAMES)
    refused = empg("data", "fetch", "alfworld", "data_dir=data/json_2.1.3_tw-pddl.zip", code=2)
    assert "json_2.1.3_tw-pddl.zip is a file" in flat(refused.stderr)
    assert flat(refused.stderr).endswith("give the folder that it is in: data_dir=data")


def test_an_optional_file_that_does_not_come_holds_nothing_up(
    empg: Empg, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    games = alfworld.GAMES
    human = PublishedFile("human.json", "http://127.0.0.1:9/human.json", "instructions", is_needed=False)
    monkeypatch.setitem(webshop.SETS, "small", (human, games))
    monkeypatch.setattr(webshop, "survey", lambda folder, chosen: survey(folder, (human, games)))
    server.script = [Reply(b"", 404)]
    done = empg("data", "fetch", "webshop", "data_dir=data", f"mirror={server.url}")
    assert "human.json was not fetched, and is optional: " in flat(done.stderr) and "HTTP 404" in flat(done.stderr)
    assert [path.name for path in Path("data").iterdir()] == [games.name]


def test_a_full_disk_keeps_what_has_come(empg: Empg, server: FakeServer) -> None:
    with files_end_at(150_000):
        refused = empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}", code=1)
    assert "json_2.1.3_tw-pddl.zip.part" in refused.stderr and "make room" in flat(refused.stderr)
    empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}")
    assert server.requests[-1].headers["range"] == "bytes=150000-"


def test_unpacked_for_others(empg: Empg, server: FakeServer) -> None:
    empg("data", "fetch", "alfworld", "data_dir=data", f"mirror={server.url}", "unpack=true")
    folder = Path("data/json_2.1.3_tw-pddl")
    assert len(list(folder.rglob("game.tw-pddl"))) == 3
    assert "games in train" in empg("data", "verify", "alfworld", f"data_dir={folder}").stdout


def test_an_archive_that_points_outside_is_not_unpacked(
    empg: Empg, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = archive({"../../evil": "evil"})
    of = alfworld.GAMES
    facts = PublishedFile(of.name, of.address, of.holds, len(evil), hashlib.sha256(evil).hexdigest())
    monkeypatch.setattr(alfworld, "GAMES", facts)
    server.handler.content = evil  # type: ignore[attr-defined]
    refused = empg("data", "fetch", "alfworld", "data_dir=in/data", f"mirror={server.url}", "unpack=true", code=2)
    assert "points outside" in refused.stderr
    assert [path.name for path in Path().rglob("*") if path.is_file()] == [of.name]


def test_ctrl_c_keeps_the_part_and_says_how_to_go_on(tmp_path: Path) -> None:
    """A process of its own; the server sends a little and then nothing."""
    slow = FakeServer(FileServer(bytes(10_000_000)))
    program = (
        "import sys, time\n"
        "from empg_cli.services import part\n"
        "write = part.Part.write\n"
        "part.Part.write = lambda self, piece: (write(self, piece), time.sleep(0.05))\n"
        "from empg_cli.__main__ import main\n"
        "sys.exit(main())"
    )
    words = ["data", "fetch", "deepsearch", "data_dir=data", f"mirror={slow.url}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    facts = "from empg_cli.benchmarks.deepsearch.official import published as p; p.FILES = p.FILES[2:]\n"
    process = subprocess.Popen(
        [sys.executable, "-c", facts + program, *words],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    part = tmp_path / "data" / "train.parquet.part"
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    slow.close()
    assert process.returncode == 130, said
    assert "To go on:" in said and "data fetch deepsearch" in said and "Traceback" not in said
    assert 0 < part.stat().st_size < 10_000_000
    assert sorted(path.name for path in part.parent.iterdir()) == ["train.parquet.part", "train.parquet.part.json"]


# --- verify ---


def test_a_whole_archive_and_a_folder_of_games(empg: Empg, tmp_path: Path) -> None:
    Path("data").mkdir()
    Path("data/json_2.1.3_tw-pddl.zip").write_bytes(GAMES)
    shown = empg("data", "verify", "alfworld", "data_dir=data").stdout
    assert [line.split()[-1] for line in shown.splitlines() if "games in" in line] == ["right"] * 3
    with zipfile.ZipFile(io.BytesIO(GAMES)) as packed:
        packed.extractall("unpacked")
    assert empg("data", "verify", "alfworld", "data_dir=unpacked").stdout.count("right") == 3


def test_an_archive_of_another_release_is_judged_by_its_counts(empg: Empg) -> None:
    Path("old_tw-pddl.zip").write_bytes(archive())
    shown = empg("data", "verify", "alfworld", "data_dir=old_tw-pddl.zip").stdout
    assert "checksum not known: size and counts are checked; sha256" in shown
    game = {f"json_2.1.1/train/{PLACE}/trial_1/game.tw-pddl": json.dumps(GAME)}
    Path("old_tw-pddl.zip").write_bytes(archive(game))
    short = empg("data", "verify", "alfworld", "data_dir=old_tw-pddl.zip", code=2)
    assert "0 games in valid_seen, not 1" in short.stderr


def test_a_variable_names_the_folder(empg: Empg, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "Give data_dir=DIR, or set ALFWORLD_DATA" in empg("data", "verify", "alfworld", code=2).stderr
    (tmp_path / "json_2.1.3_tw-pddl.zip").write_bytes(GAMES)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    empg("data", "verify", "alfworld")


def test_missing_and_different_files_of_webshop(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .gz is as good as the file that it holds."""
    shop = Path("shop")
    shop.mkdir()
    items, extra = b"[]", b"{}"
    facts = {"items_shuffle_1000.json": items, "items_ins_v2_1000.json": extra, "items_human_ins.json": b"{}"}
    monkeypatch.setitem(
        webshop.SETS,
        "small",
        tuple(
            PublishedFile(
                file.name, file.address, file.holds, len(facts[file.name]),
                hashlib.sha256(facts[file.name]).hexdigest(), file.by_browser, file.is_needed,
            )
            for file in webshop.SETS["small"]
        ),
    )  # fmt: skip
    (shop / "items_ins_v2_1000.json.gz").write_bytes(gzip.compress(extra))
    missing = empg("data", "verify", "webshop", "data_dir=shop", code=2)
    table = {line.split()[0]: line for line in missing.stdout.splitlines() if line.startswith("items")}
    assert table["items_shuffle_1000.json"].endswith("missing")
    assert table["items_ins_v2_1000.json"].endswith("right")
    assert table["items_human_ins.json"].endswith("(optional)")
    assert "place it as shop/items_shuffle_1000.json" in missing.stderr and "items_human_ins" not in missing.stderr
    (shop / "items_shuffle_1000.json").write_bytes(items)
    counted = empg("data", "verify", "webshop", "data_dir=shop", code=2)
    assert "holds no product" in counted.stderr
    (shop / "items_ins_v2_1000.json.gz").write_bytes(gzip.compress(b"{ }"))
    assert "is another file: 3 bytes" in flat(empg("data", "verify", "webshop", "data_dir=shop", code=2).stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("alfworld", "official_set=full", "data_dir=x"), "official_set: is not read by empg data verify"),
        (("webshop", "official_set=half", "data_dir=x"), "official_set"),
        (("alfworld", "data_dir=nowhere"), "nowhere does not exist"),
        (
            ("webshop", "official_set=full", "data_dir=nowhere"),
            "data fetch webshop data_dir=nowhere official_set=full",
        ),
        (("chess",), "chess"),
    ],
)
def test_wrong_words_are_one_message(empg: Empg, words: tuple[str, ...], said: str) -> None:
    assert said in flat(empg("data", "verify", *words, code=2).stderr)


def test_the_official_facts_are_whole() -> None:
    """Checksums are 64 hexadecimal digits, addresses lead to the file of that name or to Google Drive."""
    for file in [*webshop.SETS["small"], *webshop.SETS["full"], *deepsearch.FILES]:
        assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16))
        assert file.address.startswith("https://")
        assert file.by_browser is ("drive.google.com" in file.address)
        assert file.by_browser or file.address.endswith(f"/{file.name}")
        assert (file.size is None) is (file.sha256 is None)
