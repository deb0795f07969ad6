"""One process at a time works in a folder: whoever writes there owns it, and a second one is told who does.

The lock is the operating system's (`flock` on `.owner`), so it ends with its process however that dies; the file says
who holds it. On a file system without locks the file itself is the lock, and its process is looked for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from empg_cli.errors import UserError
from empg_cli.files import check_writable, emptied
from empg_cli.invocation import from_here

log = logging.getLogger(__name__)

OWNER_FILE = ".owner"
HELD = (errno.EWOULDBLOCK, errno.EACCES)
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
_mine: dict[str, int] = {}
"""Folders that are owned here, with the process that took them: a fork inherits the table, and owns nothing."""


@dataclass(frozen=True, slots=True)
class Owner:
    host: str
    pid: int
    since: str
    """When it took the folder: UTC, ISO 8601."""
    doing: str
    """`training`, `evaluating` ..."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.doing} since {self.since})"


class FolderOwned(UserError):  # noqa: N818 (a sentence for the user)
    """Another process works in the folder."""


@contextlib.contextmanager
def owning(folder: Path, doing: str, *, again: bool = False) -> Iterator[None]:
    """While the block runs, no other process that asks gets this folder.

    Args:
        folder: exists.
        again: a block around this one may own it already, in this process: then it goes on owning it.

    Raises:
        FolderOwned: another process has it; nothing in the folder was changed.
        OSError: the folder cannot be written.
    """
    path, place = folder / OWNER_FILE, os.path.realpath(folder)
    if again and _mine.get(place) == os.getpid():
        yield
        return
    descriptor = _locked(path)
    _mine[place] = os.getpid()
    try:
        me = Owner(socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"), doing)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(asdict(me)) + "\n").encode(), 0)
        yield
    finally:
        del _mine[place]
        with contextlib.suppress(OSError):  # a folder that was moved or deleted meanwhile
            path.unlink(missing_ok=True)  # before the lock goes, so that nobody can have taken it
        os.close(descriptor)


@contextlib.contextmanager
def owned_by_parent(folder: Path) -> Iterator[None]:
    """While the block runs, blocks inside it that say `again` work in a folder of the process that has started this one
    for its work there. It stays the parent's.

    Raises:
        FolderOwned: it is not the parent's: another process has it, or nobody.
    """
    owner, place = owner_of(folder), os.path.realpath(folder)
    if owner is None or (owner.host, owner.pid) != (socket.gethostname(), os.getppid()):
        raise FolderOwned(_taken(folder))
    _mine[place] = os.getpid()
    try:
        yield
    finally:
        del _mine[place]


@contextlib.contextmanager
def working_in(folder: Path, doing: str) -> Iterator[None]:
    """The folder is made where it is missing, tried before the work, and owned while the block runs; one that was made
    for nothing goes again.

    Raises:
        FolderOwned, OSError: as `owning`.
    """
    with emptied(folder, was_there=folder.exists()):
        check_writable(folder)
        with owning(folder, doing):
            yield


def owner_of(folder: Path) -> Owner | None:
    """Who says to have the folder: a live process, or one that was killed there."""
    try:
        return Owner(**json.loads((folder / OWNER_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _locked(path: Path) -> int:
    """A descriptor of the owner file that holds its lock, and that is still the file of this name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except OSError as error:
            if error.errno in NO_LOCKS and not _lives(owner_of(path.parent)):
                log.warning("%s: this file system has no locks (%s); only processes of this machine are noticed",
                            path.parent, error.strerror)  # fmt: skip
                return descriptor
            os.close(descriptor)
            if error.errno in (*HELD, *NO_LOCKS):
                raise FolderOwned(_taken(path.parent)) from None
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """False where its last owner has deleted the file between our opening and locking it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lives(owner: Owner | None) -> bool:
    if owner is None or owner.host != socket.gethostname():
        return owner is not None  # of another machine nobody here can tell
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return owner.pid != os.getpid()


def _taken(folder: Path) -> str:
    who = owner_of(folder) or "another process"
    hint = "wait for it or stop it; where it is certainly dead, delete that folder's .owner"
    return f"{from_here(folder)} is in use by {who}: {hint}"
