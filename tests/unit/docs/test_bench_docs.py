"""The page of measured tables: what `make bench` measures has its place there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench.common import growth_exponent, shown
from scripts.bench.write_docs import PAGE, markdown, with_part

ROOT = Path(__file__).parents[3]


def test_every_bench_of_the_makefile_is_a_script_with_a_place_in_the_page() -> None:
    found = re.findall(r"^(?:OTHER_)?BENCHES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(found) == 2
    names = " ".join(found).split()
    page = PAGE.read_text()
    assert sorted(re.findall("<!-- bench:(.+) -->", page)) == sorted(names)
    for name in names:
        assert (ROOT / "scripts" / "bench" / f"{name}.py").is_file()
        with_part(page, name, "")


def test_the_scripts_find_what_they_measure() -> None:
    """They import and patch parts of the product by name: here all of them load, and the clocks find their places."""
    names = sorted(path.stem for path in (ROOT / "scripts" / "bench").glob("*.py"))
    code = f"import {', '.join(names)}\n"
    code += "from empg_cli.benchmarks import make_benchmark\n"
    code += "benchmark = make_benchmark(**made.run_config().benchmark.model_dump())\n"
    code += "with shares.clocked(shares.Clocks(), benchmark): pass\n"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts" / "bench", check=True, timeout=120)


def test_a_part_is_replaced_and_nothing_else() -> None:
    page = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\n<!-- bench:y -->\nkept\n<!-- /bench:y -->\n"
    assert with_part(page, "x", r"new \1") == page.replace("old", r"new \1")
    with pytest.raises(SystemExit, match="no place for z"):
        with_part(page, "z", "new")


def test_a_report_becomes_a_table() -> None:
    facts = {"command": "c", "date": "d", "commit": "e", "cpu": "f", "cores": 2, "load": 1.0, "threads": 1}
    facts |= {"gemm_gflops": [70.4, 69.6], "versions": "v"}
    table = {"title": "T", "columns": ["what", "CPU s"], "rows": [["a|b", "1.50"]], "notes": ["note"]}
    lines = markdown({"facts": facts, "tables": [table]}).splitlines()
    assert "70 GFLOP/s before and 70 after" in lines[0]
    assert lines[1:] == ["", "**T**", "", "| what | CPU s |", "|---|---:|", "| a\\|b | 1.50 |", "", "note"]


def test_a_script_of_another_machine_says_itself_where_it_ran() -> None:
    report = {"facts": {"measured": "On a GPU."}, "tables": []}
    assert markdown(report) == "On a GPU."


def test_numbers_keep_three_digits_and_growth_its_exponent() -> None:
    assert [shown(value) for value in (0.012345, 1.5, 1234.5, 7, "text", 0.0)] == [
        "0.0123",
        "1.50",
        "1,234",
        "7",
        "text",
        "0",
    ]
    assert growth_exponent([1, 2, 4, 8], [3 * size**1.5 for size in (1, 2, 4, 8)]) == pytest.approx(1.5)
