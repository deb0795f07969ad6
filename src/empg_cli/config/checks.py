"""What the schema cannot know: whether the files that a configuration names are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from empg_cli.config.problems import Problem

DATA_VARIABLES = ("ALFWORLD_DATA", "WEBSHOP_DATA", "DEEPSEARCH_DATA")
"""conf/ takes benchmark.data_dir from them."""


def check_texts(node: Any, key: str = "") -> list[Problem]:
    """Texts that another text would come out of where the configuration that a run has saved is read again.

    Args:
        node: of a composed configuration, plain data, its own references filled in.
    """
    match node:
        case dict():
            parts = [(f"{key}.{name}" if key else str(name), inner) for name, inner in node.items()]
        case list() | tuple():
            parts = [(f"{key}[{number}]", inner) for number, inner in enumerate(node)]
        case str() if "${" in node:
            return [Problem(key, "holds ${, which refers to another setting", node, "write it without the $ or the {")]
        case _:
            return []
    return [problem for name, inner in parts for problem in check_texts(inner, name)]


def check_files(values: dict[str, Any]) -> list[Problem]:
    """Problems with the paths in a composed configuration, valid or not. Looks at this machine's disk only."""
    problems = []
    data_dir = _select(values, "benchmark", "data_dir")
    if isinstance(data_dir, str) and not (data_dir.strip() and Path(data_dir).expanduser().exists()):
        shown = data_dir if data_dir.strip() else repr(data_dir)
        hint = "give the official data (a folder or an archive), or benchmark.data_dir=null to play generated tasks"
        named = [name for name in DATA_VARIABLES if os.environ.get(name) == data_dir]
        hint += f" ({named[0]} in the environment says it)" if named else ""
        problems.append(Problem("benchmark.data_dir", "does not exist", shown, hint))
    path = _select(values, "model", "path")
    if isinstance(path, str) and _is_local(path) and not Path(path).expanduser().is_dir():
        hint = "give a Hugging Face model folder or a hub id like owner/name"
        problems.append(Problem("model.path", "no such folder", path, hint))
    warm_start = _select(values, "trainer", "warm_start")
    file = warm_start.get("file") if isinstance(warm_start, dict) else None
    if isinstance(file, str) and not (path := Path(file).expanduser()).is_file():
        hint = "give a file of demonstrations, a JSON object a line (docs/warm-start.md)"
        what = "is no file" if path.exists() else "no such file"
        problems.append(Problem("trainer.warm_start.file", what, file, hint))
    for key, words in (("resume", ("auto", "restart")), ("run", ())):
        folder = values.get(key)
        if isinstance(folder, str) and folder not in words and not Path(folder).expanduser().is_dir():
            problems.append(Problem(key, "no such folder", folder, "give a run folder or one of its checkpoints"))
    return problems


def _is_local(path: str) -> bool:
    """A hub id (`owner/name`) is left to the hub; anything that can only be a path must exist."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1


def _select(values: dict[str, Any], group: str, key: str) -> Any:
    node = values.get(group)
    return node.get(key) if isinstance(node, dict) else None
