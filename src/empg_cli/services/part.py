"""The part of a file that has come so far, and what the server said about the whole: both outlive the process."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from empg_cli.files import naming, sync, write_atomically

SUFFIX: Final = ".part"
NOTE: Final = ".part.json"


@dataclass(slots=True)
class Part:
    path: Path
    _file: IO[bytes]
    _note: Path
    _url: str
    _is_checked: bool
    """The whole will be compared with a checksum."""
    validator: str | None = None
    """The server's ETag, or date, of the file that this is a part of."""
    total: int | None = None
    """Bytes of the whole file, as the server says."""
    is_whole: bool = False

    @classmethod
    @contextlib.contextmanager
    def of(cls, target: Path, url: str, *, is_checked: bool) -> Iterator[Part]:
        """That of a target, empty where nothing has come yet from this address. One process at a time: the caller sees
        to that (owner.py).

        Raises:
            FileExistsError: the target is there.
        """
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        path, note = target.with_name(target.name + SUFFIX), target.with_name(target.name + NOTE)
        with naming(path), path.open("ab", buffering=0) as file:
            part = cls(path, file, note, url, is_checked)
            part._recall()
            try:
                yield part
            finally:
                if path.exists() and not part.size:
                    part.drop()

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    @property
    def can_go_on(self) -> bool:
        """Something has come, and whether a rest belongs to it can be told: two versions may have the same size."""
        return self.size > 0 and (self.validator is not None or (self._is_checked and self.total is not None))

    def begin(self, validator: str | None, total: int | None) -> None:
        """The file comes from its first byte on."""
        self.restart()
        self.validator, self.total = validator, total
        write_atomically(self._note, json.dumps({"url": self._url, "validator": validator, "total": total}))

    def restart(self) -> None:
        self._file.truncate(0)
        self.validator = self.total = None
        self.is_whole = False

    def write(self, piece: bytes) -> None:
        with naming(self.path):
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]

    def ended(self) -> None:
        """The server has sent all that it wanted to."""
        self.is_whole = self.total in (None, self.size)

    def sha256(self) -> str:
        with naming(self.path), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """On the disk, name and all, when it returns."""
        sync(self.path)
        self.path.replace(target)
        self._note.unlink(missing_ok=True)
        sync(target.parent)

    def _recall(self) -> None:
        """What was noted of the same address; anything else begins anew."""
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            if noted["url"] == self._url:
                self.validator, self.total = noted["validator"], noted["total"]
        except (OSError, ValueError, TypeError, KeyError):  # no note, or half of one
            pass
        if not self.can_go_on or (self.total is not None and self.size > self.total):
            self.restart()
        self.is_whole = self.total is not None and self.size == self.total
