"""Whoever reads a checkpoint holds it, so that its run does not delete it meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from empg_cli.invocation import from_here
from empg_cli.owner import HELD, NO_LOCKS
from empg_cli.runs.manifest import MANIFEST, CheckpointError


class Hold:
    """While it is held no run deletes or moves the checkpoint. Anybody may hold one, on a read-only disk too.

    Raises:
        CheckpointError: it is being deleted.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._file: BinaryIO | None = None
        try:
            self._file = (checkpoint / MANIFEST).open("rb")
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:  # no manifest, which is a fault of its own; or a file system without locks
            if self._file is not None and error.errno in HELD:
                self.release()
                raise CheckpointError(f"{from_here(checkpoint)} is being deleted by its run: ask again") from None

    def release(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def nobody_reads(checkpoint: Path) -> Iterator[bool]:
    """Whether no process holds it, False where that cannot be told; while the block runs none will."""
    try:
        file = _to_be_locked(checkpoint / MANIFEST)
    except OSError:  # no manifest
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                yield False
                return
        yield True


def _to_be_locked(manifest: Path) -> BinaryIO:
    """Open for writing where that is allowed: over NFS an exclusive lock needs it."""
    try:
        return manifest.open("r+b")
    except OSError:
        return manifest.open("rb")
