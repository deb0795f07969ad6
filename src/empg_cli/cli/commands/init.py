"""`empg init NAME`: a new project with a text benchmark of one's own, ready to be played and trained on."""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import os
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from empg_cli.errors import UserError
from empg_cli.invocation import command, from_here
from empg_cli.observe.terminal import printable

GAME, PROJECT = "your_game", "your_project"
"""Words of the templates in assets/project that become the module's and the folder's name."""
FILES = {
    "README.md": "README.md",
    "your_game.py": f"{GAME}.py",
    "test_your_game.py": f"test_{GAME}.py",
    "your_game.yaml": f"conf/benchmark/{GAME}.yaml",
    "pyproject.toml": "pyproject.toml",
    "gitignore": ".gitignore",
}
"""Template -> where it goes."""
TAKEN = frozenset({"alfworld", "webshop", "deepsearch", "custom", "empg_cli", "conf", "runs", "pytest", "pydantic"})


def run(name: str) -> None:
    folder = Path(name).expanduser().absolute()  # `.` too
    module = module_name(folder.name)
    _refuse_installed(module, folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{name} is there already: give another name, or delete it")
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        for template, place in FILES.items():
            text = (files("empg_cli") / "assets" / "project" / f"{template}.txt").read_text(encoding="utf-8")
            path = temporary / _named(place, module, folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_named(text, module, folder), encoding="utf-8")
        if folder.is_dir():  # empty, and perhaps where the user's shell is
            for made in temporary.iterdir():
                made.replace(folder / made.name)
        else:
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shown = from_here(folder)
    print(printable(f"made {shown}: README.md says what is where. Next:\n  cd {shown}"))
    print(printable(f"  {command('play', f'benchmark.target={module}:Game')}"))


def _refuse_installed(module: str, folder: Path) -> None:
    """Raises:
    UserError: what is installed here has a module of that name, which would be imported instead.
    """
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a module that is being imported, or was made by hand
        found = None
    places = [found.origin] if found and found.has_location else (found and found.submodule_search_locations) or []
    for place in map(Path, filter(None, places)):
        if not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{module} is a module here already ({place}): take another name")


def _named(text: str, module: str, folder: Path) -> str:
    return text.replace(GAME, module).replace(PROJECT, folder.name)


def module_name(name: str) -> str:
    """That of a folder, as Python can import it.

    Raises:
        UserError: it cannot, or would import something else.
    """
    module = name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", module):
        raise UserError(f"{name!r} cannot name a Python module: take letters, digits, - and _, a letter first")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names | TAKEN | set(dir(builtins)):
        raise UserError(f"{name!r} means something else in Python or in empg: take another name")
    return module
