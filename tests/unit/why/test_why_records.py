"""Numbers anew and records (scripts/why/recompute.py, records.py), on studies made by hand."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.reports.ablation_tables import write_tables
from empg_cli.runs.study import Study, read_study
from empg_cli.stats.paired import sign_flip_test
from empg_cli.studies.comparison import compare
from scripts.why import recompute, records
from tests.unit.reports.test_ablation_tables import make as made_study

# --- numbers anew ----------------------------------------------------------------------------------------


@pytest.fixture
def tabled(tmp_path: Path) -> Path:
    """A study of three variants and four seeds, with its tables."""
    return with_tables(made_study(tmp_path / "study"))


def with_tables(study: Study) -> Path:
    comparison = compare(study)
    assert comparison is not None
    write_tables(comparison, study.folder)
    return study.folder


def audited(folder: Path) -> tuple[int, str]:
    """Exit code and what is said."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        return recompute.main([str(folder)]), told.getvalue()


def table_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "ablation.csv").open()))


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "ablation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_auditors_script_agrees_with_the_tables_and_sees_a_wrong_one(tabled: Path) -> None:
    code, told = audited(tabled)
    assert code == 0, told
    assert "study better: 4 seeds" in told
    rows = table_of(tabled)
    for key in ("mean", "low", "difference", "difference_high", "p", "p_holm"):
        for wrong in (lambda value: str(float(value) + 1e-6), lambda value: "", lambda value: "nan"):
            write_table(tabled, [row | {key: wrong(row[key])} if row["variant"] == "better" else row for row in rows])
            code, told = audited(tabled)
            assert code == 1, key
            assert f"study better {key}:" in told


def test_the_auditors_script_sees_what_only_one_side_has(tabled: Path) -> None:
    rows = table_of(tabled)
    base = next(row for row in rows if row["variant"] == "grpo")
    write_table(tabled, [row | {"p": "0.01"} if row is base else row for row in rows])
    assert audited(tabled)[0] == 1, "a p value of the base"
    for changed, said in (
        ([*rows, rows[1] | {"variant": "wonder"}], "study wonder: 0 runs that are done, 1 rows in ablation.csv"),
        ([*rows, rows[1]], "study better: 4 runs that are done, 2 rows in ablation.csv"),
        (rows[:2], "study noisy_1: 4 runs that are done, 0 rows in ablation.csv"),
    ):
        write_table(tabled, changed)
        code, told = audited(tabled)
        assert code == 1 and said in told, told


def test_the_auditors_script_counts_what_is_done(tmp_path: Path) -> None:
    study = made_study(tmp_path / "study")
    (study.folder / "better-s3" / "summary.json").write_text(json.dumps({"exit_code": 1}))
    (study.folder / "noisy_1-s0" / "summary.json").unlink()
    code, told = audited(with_tables(study))
    assert code == 0, told
    assert "study better: 3 seeds" in told and "study noisy_1: 3 seeds" in told
    for seed in (1, 2):  # one pair makes no difference, and Holm counts the others alone
        (study.folder / f"noisy_1-s{seed}" / "summary.json").unlink()
    assert audited(with_tables(study))[0] == 0


def test_the_auditors_script_says_which_arm_is_missing(tmp_path: Path) -> None:
    study = made_study(tmp_path / "study")
    for path in study.folder.glob("grpo-s*/summary.json"):
        path.unlink()
    code, told = audited(with_tables(study))
    assert code == 0, told
    assert "study: grpo has no run that is done" in told
    assert "study: without grpo, the base, there are no differences" in told


def test_the_auditors_script_refuses_cells_of_unlike_code(tabled: Path) -> None:
    for path in tabled.glob("*/run.json"):
        path.write_text(json.dumps({"code": "old" if path.parent.name == "better-s1" else "new"}))
    code, told = audited(tabled)
    assert code == 2
    assert "study: the cells are not of the same code, so they are not compared" in told and "old: better-s1" in told


def test_what_is_no_study_is_refused_in_a_sentence(tmp_path: Path, tabled: Path) -> None:
    (tabled / "ablation.csv").unlink()
    for folder, said in ((tmp_path, "has no study.json that can be read"), (tabled, "study has no ablation.csv")):
        code, told = audited(folder)
        assert code == 2 and said in told


def test_sums_of_zero_are_equal_but_for_rounding() -> None:
    # all 8 patterns of (1, 3, -4) have a sum at least as far from 0 as theirs, which is 0
    gaps = [1 / 140, 3 / 140, -4 / 140]
    assert recompute.sign_flip(gaps) == sign_flip_test(gaps).p_value == 1.0


@given(st.lists(st.integers(-6, 6), min_size=2, max_size=10), st.sampled_from([3, 7, 140]))
def test_p_values_are_those_of_the_tables(gaps: list[int], tasks: int) -> None:
    shares = [gap / tasks for gap in gaps]
    assert recompute.sign_flip(shares) == pytest.approx(sign_flip_test(shares).p_value, abs=1e-12)


def test_the_auditors_script_stands_alone(tabled: Path) -> None:
    assert "empg_cli" not in Path(recompute.__file__).read_text().replace("nothing of empg", "")
    command = [sys.executable, "-I", str(Path(recompute.__file__)), str(tabled)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tabled)
    assert (answer.returncode, answer.stdout) == (0, audited(tabled)[1]), answer.stderr


# --- records ---------------------------------------------------------------------------------------------


def test_a_study_that_was_packed_goes_on_where_it_was(tmp_path: Path) -> None:
    study = made_study(tmp_path / "study")
    (tmp_path / "study" / "grpo-s0" / "checkpoints").mkdir()
    (tmp_path / "study" / "grpo-s0" / "checkpoints" / "weights").write_bytes(b"0" * 1000)
    (tmp_path / "study" / "better-s3" / "summary.json").unlink()  # is being played
    stopped = tmp_path / "study" / "better-s2" / "summary.json"
    stopped.write_text(json.dumps({**json.loads(stopped.read_text()), "exit_code": 130}))
    archive = tmp_path / "kept.tar.xz"
    with_tables(study)
    assert records.pack(study.folder, archive) == 10
    before = archive.read_bytes()
    records.pack(study.folder, archive)
    assert archive.read_bytes() == before
    assert records.unpack(archive, tmp_path / "again") > 30
    again = read_study(tmp_path / "again")
    assert [cell.folder for cell in again.pending()] == ["better-s2", "better-s3"]
    assert len(again.done()) == 10
    assert not list((tmp_path / "again").rglob("weights"))
    code, told = audited(tmp_path / "again")
    assert code == 0 and "again better: 2 seeds" in told, told
    assert (tmp_path / "again" / "runs.csv").read_bytes() == (study.folder / "runs.csv").read_bytes()
    (tmp_path / "again" / "grpo-s0" / "metrics.jsonl").write_text("newer")
    assert records.unpack(archive, tmp_path / "again") == 0
    assert (tmp_path / "again" / "grpo-s0" / "metrics.jsonl").read_text() == "newer"


def test_two_may_unpack_at_once(tmp_path: Path) -> None:
    """Both begin where nothing is there, as `play` on two terminals: neither fails, and every file is whole."""
    archive, text = tmp_path / "study.tar.xz", "x" * 100_000
    names = [f"arm-s{seed}/metrics.jsonl" for seed in range(40)]
    with tarfile.open(archive, mode="w:xz") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: records.unpack(archive, tmp_path / "new" / "study"), range(4)))
    assert sum(written) >= len(names)
    assert all((tmp_path / "new" / "study" / name).read_text() == text for name in names)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["study"], "nothing else is left"


def test_the_later_half_of_a_run() -> None:
    """7 to 12 of 12, 8 to 15 of 15; the last row may be an evaluation's, which has the last update's number."""
    for updates, first in ((12, 7), (15, 8), (16, 9), (1, 1)):
        assert records.later_half([{"update": update} for update in [*range(updates + 1), updates]]) == first
