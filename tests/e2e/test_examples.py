"""The scripts of examples/, each as a user runs it; where a run takes long, with fewer updates."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, **shorter: str) -> str:
    """What the script prints.

    Args:
        shorter: text of the script -> what stands there in the test.
    """
    code = (EXAMPLES / name).read_text(encoding="utf-8")
    for text, other in shorter.items():
        assert code.count(text) == 1, f"{name} has no {text!r}, or several"
        code = code.replace(text, other)
    script = folder / name
    script.write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_example_is_run_and_on_the_page() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    here = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f'run("{script.name}"' in here and f"`examples/{script.name}`" in page


def test_empg_on_your_batch(tmp_path: Path) -> None:
    said = run("empg_on_your_batch.py", tmp_path)
    rows = [[float(word) for word in line.split()] for line in said.splitlines()[1:6]]
    # The vector of tests/golden/test_empg_golden.py: g, f of the next step, and the credit.
    g, clarity, credit = zip(*(row[3:] for row in rows), strict=True)
    assert list(g) == pytest.approx([1.415624, 0.858619, 0.520779, 1.102489, 1.102489], abs=6e-4)
    assert list(clarity) == pytest.approx([0.606531, 0.367879, 0, 0.778801, 0], abs=6e-4)
    assert list(credit) == pytest.approx([1.310409, 0.741472, 0.385238, -1.199090, -1.238030], abs=6e-4)
    moved = said[said.index("log-probs moved by [") :].partition("[")[2].partition("]")[0].split()
    assert [float(change) > 0 for change in moved] == [True, True, True, False, False]


@pytest.mark.slow
def test_own_text_environment(tmp_path: Path) -> None:
    said = run("own_text_environment.py", tmp_path, **{"trainer.updates=12": "trainer.updates=4"})
    assert "> north" in said or "> south" in said or "> east" in said or "> west" in said
    (evaluate,) = [line.split(maxsplit=1)[1] for line in said.splitlines() if line.split()[:1] == ["evaluate"]]
    words = [sys.executable, "-m", "empg_cli", *shlex.split(evaluate)[1:], "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = run("own_text_environment.py", tmp_path, **{"trainer.updates=12": "trainer.updates=1"})
    assert again.rstrip().splitlines()[-1].startswith("after  1 updates:")
    shares = [line for line in said.splitlines() if line.endswith("not trained on")]
    assert [line.split()[1] for line in shares] == ["0", "4"]


@pytest.mark.slow
def test_runs_into_dataframes(tmp_path: Path) -> None:
    for name in ("pandas", "polars"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: make test installs it")
    said = run("runs_into_dataframes.py", tmp_path)
    assert "eval/success_rate" in said and "update-000002" in said
    assert said.count("shape: ") == 2 and "advantage" in said
    assert run("runs_into_dataframes.py", tmp_path).count("shape: ") == 2


@pytest.mark.slow
def test_study_in_a_loop(tmp_path: Path) -> None:
    said = run("study_in_a_loop.py", tmp_path, **{"SEEDS = range(4)": "SEEDS = range(2)", "UPDATES = 4": "UPDATES = 1"})
    assert "empg - grpo" in said and "2 seeds: " in said
    again = {"SEEDS = range(4)": "SEEDS = range(2)", "UPDATES = 4": "UPDATES = 1"}
    assert _results(run("study_in_a_loop.py", tmp_path, **again)) == _results(said)
    assert sorted(path.name for path in (tmp_path / "runs" / "study").iterdir()) == [
        "empg-s0", "empg-s1", "grpo-s0", "grpo-s1",
    ]  # fmt: skip


def _results(said: str) -> list[str]:
    """Without the times that runs take."""
    found = said.splitlines()[-4:]
    assert found[0].startswith("grpo  ") and found[1].startswith("empg  "), found
    return found
