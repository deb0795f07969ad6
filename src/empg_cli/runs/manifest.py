"""What is in a checkpoint: `manifest.json` names every file with its size and SHA-256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from typing_extensions import TypedDict

from empg_cli.errors import DataError, UserError
from empg_cli.files import sync
from empg_cli.runs.history import STATE
from empg_cli.runs.shapes import OPEN, read_json

MANIFEST = "manifest.json"


class _File(TypedDict):
    bytes: int
    sha256: str


class _Manifest(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    files: dict[str, _File]


class CheckpointError(UserError):
    """A checkpoint that was asked for cannot be used. The message says which and why."""


def checkpoint_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = read_json(path / MANIFEST, _Manifest)["files"]
        if STATE not in files:
            return f"{MANIFEST} does not name {STATE}"
        for name, expected in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, not {expected['bytes']}"
            if _sha256(file) != expected["sha256"]:
                return f"{name} does not match its SHA-256"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read ({error})"
    except DataError as error:
        return f"unreadable {MANIFEST} ({error})"
    return None


def write_manifest(folder: Path) -> None:
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        sync(file)
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}, indent=1))
    sync(folder / MANIFEST)
    for names in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(names)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
