"""A file of lines that only grows: each line is in it whole or not at all, also when the disk fills in the middle."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from empg_cli.files import naming


class RowFile:
    def __init__(self, path: Path) -> None:
        """Opens the file at its end; makes it where it is missing."""
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._torn_at: int | None = None
        """Where half a line begins that could not be taken back."""

    def append(self, lines: str) -> None:
        """Whole lines, with their ends; readers see them when it returns.

        Raises:
            OSError: the disk took none of it, or a part that was taken back.
        """
        self.append_bytes(lines.encode())

    def append_bytes(self, record: bytes) -> None:
        """The same of a file that holds records in the place of lines."""
        with naming(self.path):
            self._append(record)

    def _append(self, record: bytes) -> None:
        self._take_back()
        end, left = os.fstat(self._descriptor).st_size, memoryview(record)
        try:
            while left:  # a disk that fills takes a part first, and refuses the next
                left = left[os.write(self._descriptor, left) :]
        except BaseException:  # Ctrl-C too
            self._torn_at = end
            with contextlib.suppress(OSError):
                self._take_back()
            raise

    def sync(self) -> None:
        """What was appended is on the disk when it returns, whatever happens to the machine."""
        with naming(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _take_back(self) -> None:
        if self._torn_at is not None:
            os.ftruncate(self._descriptor, self._torn_at)
            self._torn_at = None
