"""How empg was called, so that every command it suggests can be pasted as it stands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from empg_cli.uvx import uvx_program

CALLED_AS, CALLED_IN = "EMPG_CALLED_AS", "EMPG_CALLED_IN"
"""In the environment, since the workers of a launcher have another command line, and a job may have another folder."""


def remember() -> None:
    """Note program and folder; to be called when the command line starts."""
    os.environ[CALLED_AS] = shlex.join(_program(sys.argv[0]))
    os.environ[CALLED_IN] = str(Path.cwd())


def command(*words: str) -> str:
    """`empg WORDS` as this user has to type it, quoted for the shell. In a program of one's own: with a bare `empg`."""
    return shlex.join([*shlex.split(os.environ.get(CALLED_AS, "empg")), *words])


def eval_command(run_dir: Path, outside: Sequence[str] = ()) -> str:
    """Ready to paste: quoted for Hydra where its grammar needs it, and for the shell.

    Args:
        outside: words that name the run's code from outside, which it is not imported without.
    """
    words = [word for word in outside if word.startswith("benchmark.")]
    return command("eval", f"run={as_value(run_dir)}", *words)


def as_value(path: Path) -> str:
    """A path as Hydra's grammar takes it, on the right of `=`."""
    text = str(path)
    return text if re.fullmatch(r"[\w./-]+", text) else '"' + text.replace('"', r"\"") + '"'


def resume_command(run_dir: Path, outside: Sequence[str] = ()) -> str:
    return command("train", "--resume", str(run_dir), *outside)


def restart_command(run_dir: Path) -> str:
    return command("train", "--resume", str(run_dir), "--restart")


def script(name: str) -> str:
    """A program that another package has installed beside this Python, such as `wandb`, as one has to type it."""
    return shlex.quote(_typed(Path(sys.executable).with_name(name)))


def from_here(path: Path) -> Path:
    """Relative to the folder where empg was called, if the path lies below it: shorter to read and to paste."""
    here = Path(os.environ.get(CALLED_IN) or Path.cwd())
    return path.relative_to(here) if path.is_relative_to(here) else path


def _program(argv0: str) -> list[str]:
    if (program := uvx_program()) is not None:
        return program
    if Path(argv0).name == "__main__.py":
        return [_typed(Path(sys.executable)), "-m", "empg_cli"]
    if "UV_RUN_RECURSION_DEPTH" in os.environ:  # `uv run` puts empg on the path of its child alone
        return ["uv", "run", "empg"]
    return [_typed(Path(argv0))]


def _typed(program: Path) -> str:
    """The bare name if that finds this very program, else its path, short where it lies below the current folder."""
    program = Path.cwd() / program  # links stay: the python of every environment may lead to the same one
    found = shutil.which(program.name)
    if found and _place(Path(found)) == _place(program):
        return program.name
    here = Path.cwd()
    below = program.relative_to(here) if program.is_relative_to(here) else program
    return f"./{below}" if below.name == str(below) else str(below)


def _place(program: Path) -> tuple[str, str]:
    return os.path.realpath(program.parent), program.name
