"""Folders that appear whole or not at all (`benchmarks.building`), and the data commands that make them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from empg_cli.benchmarks.building import built_aside
from empg_cli.cli.commands import data
from empg_cli.cli.commands.data_deepsearch import index
from empg_cli.observe.stop import Stopped

HOLD = """
import sys, time
from pathlib import Path
from empg_cli.benchmarks.building import built_aside
with built_aside(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print("half", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def builder(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    return process


def test_it_appears_at_the_end_and_with_nothing_of_ours_in_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with built_aside(out) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
    assert (names(out), names(out.parent)) == (["file"], ["out"])


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    with pytest.raises(Stopped), built_aside(tmp_path / "out") as folder:  # noqa: PT012
        (folder / "file").write_text("x")
        raise Stopped(signal.SIGTERM, "again")
    assert names(tmp_path) == []


def test_what_the_killed_leave_is_removed_by_the_next_and_the_living_are_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out[1]"
    killed, alive = builder(out), builder(out)
    killed.kill()
    killed.wait()
    assert len(names(tmp_path)) == 2
    with built_aside(out):
        assert len(names(tmp_path)) == 2  # ours and that of the living
    alive.terminate()
    alive.wait()


def test_data_compile_and_index_leave_nothing_when_they_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text('{"id": "0", "contents": "\\"Title\\"\\nText"}\n' * 2)

    def stop(*_: object) -> None:
        assert any(name.startswith(".out.partial-") for name in names(tmp_path))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("empg_cli.cli.commands.data.write_line", stop)
    monkeypatch.setattr(data, "_LINE_EVERY", 5)
    with pytest.raises(Stopped, match="SIGTERM"):
        data.compile_catalogue(None, Path("out"), which="full", generate=10, shop_seed=0, price_seed=0)
    assert names(tmp_path) == ["corpus.jsonl"]
    monkeypatch.setattr("empg_cli.cli.commands.data_deepsearch.write_line", stop)
    monkeypatch.setattr("empg_cli.cli.commands.data_deepsearch.LINE_EVERY", 1)
    with pytest.raises(Stopped, match="SIGTERM"):
        index(
            [Path("corpus.jsonl")], Path("out"), "tantivy",
            encoder=None, pooling="mean", query_prefix="", passage_prefix="", device="cpu",
        )  # fmt: skip
    assert names(tmp_path) == ["corpus.jsonl"]
