"""The house that docs/architecture.md describes: small modules, no circle of imports, and the floors of the contract.

`make layers` holds the contracts of pyproject.toml. Here they are compared with the page, and what they say about
circles is looked for once more by a walk of our own over every module. It counts each `import` in a file, wherever it
stands: at the top, inside a function, or for types alone.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "src"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MOST_LINES = 350
LOOP_LINES = 120


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((SOURCES / "empg_cli").rglob("*.py")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(source: str, known: set[str]) -> set[str]:
    """Which of the known modules a file imports; `from package import module` means the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute here"
            inside = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {full if full in known else node.module for full in inside.values()}
    return names & known


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    reach = {node: _reached(graph, node) for node in graph}
    rings = {frozenset(other for other in reach[node] if node in reach[other]) for node in graph if node in reach[node]}
    return sorted(sorted(ring) for ring in rings)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph.get(node, set()) - seen
    return seen


GRAPH = {name: imported(path.read_text(encoding="utf-8"), set(MODULES)) - {name} for name, path in MODULES.items()}


def test_circles_are_found_however_they_are_imported() -> None:
    known = {"a", "a.b", "c", "d", "e"}
    lazy, typed = "def f():\n    from a import b", "if TYPE_CHECKING:\n    import c\nfrom d import x"
    assert imported(lazy, known) == {"a.b"}
    assert imported(typed, known) == {"c", "d"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_among_modules() -> None:
    assert circles(GRAPH) == []


def test_no_circle_among_packages() -> None:
    packages: dict[str, set[str]] = defaultdict(set)
    for name, others in GRAPH.items():
        packages[_floor_of(name)] |= {_floor_of(other) for other in others} - {_floor_of(name)}
    assert circles(dict(packages)) == []


def _floor_of(module: str) -> str:
    """`cli` of `empg_cli.cli.app`; empty for the package itself, which holds its version and imports nothing."""
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_can_be_read_at_one_sitting(name: str) -> None:
    most = LOOP_LINES if name == "empg_cli.loop" else MOST_LINES
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= most


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_page_has_the_floors_of_the_contract() -> None:
    """One row a package: its floor, its name, what it holds."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    rows = re.findall(r"^\| (\d+) \| `([a-z_]+)(?:/|\.py)` \|", section("The house"), re.MULTILINE)
    described: dict[int, set[str]] = defaultdict(set)
    for floor, package in rows:
        described[int(floor)].add(package)
    expected = {number: set(floor.split(" | ")) for number, floor in enumerate(reversed(floors))}
    assert described == expected


def test_five_files_are_named_to_be_read_first() -> None:
    files = re.findall(r"^\| `(src/[^`]+)` \|", section("Five files to read first"), re.MULTILINE)
    assert len(files) == 5
    assert all((ROOT / file).is_file() for file in files)


def walk() -> list[tuple[str, str]]:
    rows = r"^\| \d+ \| `([a-z_/]+\.py)` \| `([A-Za-z_.]+)` \|"
    return re.findall(rows, section("The walk of one value"), re.MULTILINE)


def test_the_walk_of_a_value_names_what_is_there_and_comes_back_to_no_module() -> None:
    stations = walk()
    assert len(stations) >= 8
    files = [file for file, _ in stations]
    assert len(set(files)) == len(files)
    for file, name in stations:
        tree = ast.parse((SOURCES / "empg_cli" / file).read_text(encoding="utf-8"))
        for part in name.split("."):
            (tree,) = (node for node in tree.body if getattr(node, "name", None) == part)  # type: ignore[assignment]
