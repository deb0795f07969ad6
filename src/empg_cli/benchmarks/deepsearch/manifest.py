"""`index.json` of an index folder: which engine and corpus it is of, and the seal of its files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from empg_cli.benchmarks.deepsearch.corpus import PASSAGES, build_command
from empg_cli.errors import DataError
from empg_cli.reading.guard import damaged
from empg_cli.reading.seal import is_sealed, seal, unsealed
from empg_cli.reading.streams import read_json

log = logging.getLogger(__name__)

MANIFEST: Final = "index.json"


def write_manifest(directory: Path, facts: Mapping[str, Any]) -> None:
    """Written last, so a folder with it is complete. Passages have a checksum each, compared when one is read: the
    whole of wiki-18 need not be read to open it."""
    seal(directory, MANIFEST, facts, sized_only=[PASSAGES])


def read_manifest(directory: Path) -> dict[str, Any]:
    """{"engine", "version", "passages", "digest"} of a finished index whose files are those that were written.

    Raises:
        DataError: there is no finished index, or it is damaged.
    """
    if not (directory / MANIFEST).is_file():
        raise DataError(f"{directory} holds no finished index; build it: {build_command(directory)}")
    hint = f"Delete the folder and build it again: {build_command(directory)}"
    manifest = read_json(directory / MANIFEST, hint)
    if is_sealed(manifest):
        return unsealed(directory, MANIFEST, hint)
    if not isinstance(manifest, dict) or "engine" not in manifest:
        raise damaged(directory / MANIFEST, "no manifest of an index", hint)
    log.warning("%s was built before indexes had checksums: damage to its files would not be noticed", directory)
    return manifest
