"""A run on a disk that refuses its checkpoints, from the command line, and the one message of every other command."""

from __future__ import annotations

from pathlib import Path

import pytest

from empg_cli.runs.rows import read_rows, without_wall_clock
from tests.support.disks import files_end_at


def logged(run: Path) -> list[dict[str, float | None]]:
    return [without_wall_clock(row) for row in read_rows(run / "metrics.jsonl").values()]


def test_a_run_without_room_for_its_checkpoints_goes_on_says_so_and_can_be_gone_on_with(empg, small) -> None:
    empg("train", *small, "run_dir=straight")
    with files_end_at(30_000):
        result = empg("train", *small, "run_dir=full", code=1)
    assert "Traceback" not in result.stderr
    assert result.stderr.count("was not saved to full/checkpoints: File too large; it needs about ") == 2
    assert "error: the disk has not taken all of the run in full, which ended after update 2" in result.stderr
    assert "updates             2 of 2" in result.stdout
    assert list(Path("full/checkpoints").iterdir()) == []
    assert '"exit_code": 1' in Path("full/summary.json").read_text()
    assert logged(Path("full")) == logged(Path("straight"))
    assert "`empg train --resume full --restart` makes again what is missing" in result.stderr
    empg("train", "--resume", "full", "--restart")
    assert logged(Path("full")) == logged(Path("straight"))
    assert '"exit_code": 0' in Path("full/summary.json").read_text()


def test_a_warm_start_that_cannot_be_kept_is_made_all_the_same(empg, small, monkeypatch) -> None:
    Path("cache").mkdir()
    Path("cache/empg").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").resolve()))
    result = empg("train", *small, "run_dir=run", "trainer.warm_start.steps=1")
    assert "the warm start is not kept for later runs" in result.stderr


@pytest.mark.parametrize("place", ["file/x", "n" * 300])
def test_every_command_that_writes_says_in_one_sentence_that_it_cannot(empg, small, finished_run, place) -> None:
    Path("file").touch()
    for words in (
        ("train", *small, f"run_dir={place}"),
        ("eval", f"run={finished_run}", f"run_dir={place}"),
        ("ablate", "ablation=zeta", *small, "seeds=1", f"run_dir={place}"),
        ("report", finished_run, "--no-figures", "--out", place),
        ("diagnose", finished_run, "--episodes", "2", "--gradients", "0", "--out", place),
        ("data", "compile", "webshop", "--generate", "20", "--out", place),
    ):
        result = empg(*words, code=2)
        assert result.stderr.count("error: ") == 1, words
        assert place[:4] in result.stderr, words
        assert "Traceback" not in result.stderr, words
