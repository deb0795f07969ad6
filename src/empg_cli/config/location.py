"""Where the shipped configuration tree lies, and what can be chosen in it. Reads folder names only."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def conf_dir() -> Path:
    """The shipped conf/: inside the package (wheel) or at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"the conf/ folder of empg-cli is missing beside {package}; reinstall empg-cli")


_NOT_AT_TOP = frozenset({"hydra", "judge", "retrieval"})
"""Hydra's own, and the groups of parts of a benchmark: retrieval@benchmark.retrieval=serper (docs/deepsearch.md)."""


def groups() -> dict[str, list[str]]:
    """Config group -> its options, both sorted: what can stand left and right of `group=option`."""
    found: dict[str, list[str]] = {}
    for folder in sorted(conf_dir().iterdir()):
        if folder.is_dir() and folder.name not in _NOT_AT_TOP and (options := _options(folder)):
            found[folder.name] = options
    return found


def _options(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
