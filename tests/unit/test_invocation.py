"""Commands that empg suggests can be pasted as they stand, however it was called."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from empg_cli import invocation
from empg_cli.extras import install_command
from empg_cli.invocation import eval_command, resume_command
from empg_cli.uvx import uvx_program

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = "train|eval|ablate|report|diagnose|show|play|doctor|data"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`remember` writes into the environment."""
    for name in (invocation.CALLED_AS, invocation.CALLED_IN, "UV_RUN_RECURSION_DEPTH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def program(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("argv0", "path", "shown"),
    [
        (".venv/bin/empg", "/usr/bin", ".venv/bin/empg"),  # after `make demo`
        ("{here}/.venv/bin/empg", "/usr/bin", ".venv/bin/empg"),
        ("{here}/.venv/bin/empg", "{here}/.venv/bin:/usr/bin", "empg"),  # an activated environment
        ("{here}/.venv/bin/empg", "{here}/other/bin:{here}/.venv/bin", ".venv/bin/empg"),  # another empg comes first
        ("{here}/../else where/bin/empg", "/usr/bin", "'../else where/bin/empg'"),
        ("./empg", "/usr/bin", "./empg"),
        ("{here}/src/empg_cli/__main__.py", "/usr/bin", "my-env/bin/python -m empg_cli"),
        ("{here}/src/empg_cli/__main__.py", "{here}/my-env/bin", "python -m empg_cli"),
        # the environment's python and another one are links to the same file
        ("{here}/src/empg_cli/__main__.py", "{here}/other/bin:{here}/my-env/bin", "my-env/bin/python -m empg_cli"),
    ],
)
def test_the_program_is_named_as_one_has_to_type_it(argv0, path, shown, tmp_path, monkeypatch):
    here = tmp_path / "here"
    for place in (here / ".venv/bin", here / "other/bin", tmp_path / "else where/bin", here):
        program(place, "empg")
    real = program(here / "base/bin", "python3")
    for env in ("my-env", "other"):
        (here / env / "bin").mkdir(parents=True, exist_ok=True)
        (here / env / "bin/python").symlink_to(real)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", path.format(here=here))
    monkeypatch.setattr(sys, "argv", [argv0.format(here=here), "train"])
    monkeypatch.setattr(sys, "executable", str(here / "my-env/bin/python"))
    invocation.remember()
    assert invocation.command("train", "--resume", "a b") == f"{shown} train --resume 'a b'"
    assert shlex.split(shown)[0].startswith(("empg", "python")) or os.access(shlex.split(shown)[0], os.X_OK)


def test_under_uv_run_the_command_goes_through_it_again(monkeypatch):
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    monkeypatch.setattr(sys, "argv", ["/x/.venv/bin/empg"])
    invocation.remember()
    assert invocation.command("doctor") == "uv run empg doctor"


def test_in_a_program_of_ones_own_it_is_empg():
    assert invocation.command("show", "RUN") == "empg show RUN"


def test_a_worker_suggests_what_its_parent_was_called_as(monkeypatch):
    """Of a launcher: its own command line is another."""
    monkeypatch.setattr(sys, "argv", ["./here/empg"])
    invocation.remember()
    code = "from empg_cli.invocation import *; print(eval_command(Path('r')), resume_command(Path('r')))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == "here/empg eval run=r here/empg train --resume r"
    assert (eval_command(Path("r")), resume_command(Path("r"))) == (
        "here/empg eval run=r",
        "here/empg train --resume r",
    )


def test_paths_are_from_where_empg_was_called_also_when_the_job_has_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invocation.remember()
    (tmp_path / "runs/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs/a")  # hydra.job.chdir=true
    assert invocation.from_here(tmp_path / "runs/a") == Path("runs/a")
    assert invocation.from_here(tmp_path.parent) == tmp_path.parent


@pytest.mark.parametrize("start", [["bin/empg"], [sys.executable, "-m", "empg_cli"]])
def test_what_the_help_suggests_runs_when_pasted(start, tmp_path):
    script = program(tmp_path / "bin", "empg")
    script.write_text(f"#!{sys.executable}\nfrom empg_cli.__main__ import main\nmain()\n")
    env = {**os.environ, "PATH": "/usr/bin:/bin", "COLUMNS": "300"}
    told = subprocess.run([*start, "eval", "--help"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    suggested = re.search(r"Every key with its value: (.*--cfg job)", told.stdout)[1].replace("\n", "")
    pasted = subprocess.run(suggested, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert pasted.returncode == 0, (suggested, pasted.stderr)
    assert "benchmark:" in pasted.stdout


def test_no_message_spells_a_command_by_hand():
    """Only `invocation.command` knows what the user types. Naming one, `empg eval`, is something else."""
    found = [
        f"{file.relative_to(REPOSITORY)}:{node.lineno}: {node.value.strip()[:60]}"
        for file in sorted((REPOSITORY / "src").rglob("*.py"))
        if not file.name.endswith("_page.py")  # they write pages of docs/
        for node in literals(ast.parse(file.read_text()))
        if re.search(rf"(?<!`)\bempg ({COMMANDS})\b|`empg ({COMMANDS}) [^`]*[A-Z=/-][^`]*`", node.value)
    ]
    assert found == []


def literals(tree: ast.Module) -> list[ast.Constant]:
    """Strings of a module that are no docstrings."""
    docs = {
        id(node.value)
        for parent in ast.walk(tree)
        for node in (getattr(parent, "body", None) if isinstance(getattr(parent, "body", None), list) else [])
        if isinstance(node, ast.Expr)
    }
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


@pytest.mark.parametrize("url", [None, "file:///w/empg_cli-0.1.0-py3-none-any.whl"])
def test_under_uvx_commands_start_it_anew(url: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its environment lies in uv's cache: its path is not the user's, and nobody installs into it."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "uv" / "archive-v0" / "Q3x"))
    found = SimpleNamespace(read_text=lambda _: url and json.dumps({"url": url}))
    monkeypatch.setattr("empg_cli.uvx.distribution", lambda _: found)
    package = f"empg-cli @ {url}" if url else "empg-cli"
    invocation.remember()
    assert shlex.split(invocation.command("doctor")) == ["uvx", "--from", package, "empg", "doctor"]
    assert shlex.split(install_command("report")) == ["uvx", "--from", package.replace("cli", "cli[report]", 1), "empg"]


def test_an_environment_of_ones_own_is_none_of_uvx() -> None:
    assert uvx_program() is None
