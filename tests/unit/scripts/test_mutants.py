"""The list of `make mutants` still fits the code; running it is a job of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants import MUTANTS
from scripts.mutants.mutant import Misplaced, Mutant
from scripts.mutants.run import judge

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_into_other_code_that_compiles(mutant: Mutant) -> None:
    changed = mutant.applied(ROOT)
    assert changed != (ROOT / mutant.path).read_text(encoding="utf-8")
    compile(changed, mutant.path, "exec")
    for test in mutant.tests:
        assert (ROOT / "tests" / test).is_file(), test


def test_names_are_unique_and_there_are_enough() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 45


def test_a_text_that_moved_is_named(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\na = 1\n")
    for old, count in (("a = 1", 2), ("b = 1", 0)):
        mutant = Mutant("m", "code.py", old, "a = 2", "", ())
        with pytest.raises(Misplaced, match=f"m: code.py holds {count} times, not once: '{old}'"):
            mutant.applied(tmp_path)


def test_a_mutant_is_killed_survives_or_is_broken_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "code.py").write_text("ANSWER = 42\nTRUTH = True\n")
    (tmp_path / "tests" / "test_code.py").write_text(
        "import pathlib\n\ndef test_answer():\n    scope = {}\n"
        "    exec(pathlib.Path('code.py').read_text(), scope)\n    assert scope['ANSWER'] == 42\n"
    )

    def verdict(old: str, new: str, time_limit: float = 300) -> tuple[str, str]:
        return judge(tmp_path, Mutant("m", "code.py", old, new, "the fault", ("test_code.py",)), time_limit)

    assert verdict("42", "41") == ("killed", "by tests/test_code.py::test_answer")
    assert verdict("True", "False") == ("survived", "the fault")
    assert verdict("42", "41", 0.0) == ("broken", "not done after 0 s")
    assert (tmp_path / "code.py").read_text() == "ANSWER = 42\nTRUTH = True\n"
