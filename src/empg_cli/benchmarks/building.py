"""Folders that take long to build: they appear whole or not at all, and what killed builders leave does not stay."""

from __future__ import annotations

import contextlib
import glob
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from empg_cli.owner import OWNER_FILE, FolderOwned, owning


@contextlib.contextmanager
def built_aside(out: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `out` when the block ends well; otherwise nothing is left of it.

    What was left beside `out` by builders that are dead is removed first; live ones are left alone, and the first to
    end wins.

    Raises:
        OSError: the folder cannot be written, or `out` is there by the end and is not empty.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.partial-"
    for left in out.parent.glob(f"{glob.escape(prefix)}*"):
        _remove_if_dead(left)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    try:
        with owning(aside, "building"):
            content = aside / "content"
            content.mkdir()
            yield content
            content.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_if_dead(left: Path) -> None:
    if not (left / OWNER_FILE).exists():  # of a builder that begins this very moment
        return
    with contextlib.suppress(FolderOwned, OSError), owning(left, "removing"):
        shutil.rmtree(left, ignore_errors=True)
