"""Files and folders that cannot be used: one sentence that says which, why, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from empg_cli.disk import REFUSALS, free_bytes, in_bytes, refusal
from empg_cli.errors import UserError
from empg_cli.observe.terminal import STDOUT, Naming

ELSEWHERE = (
    "give a folder that you can write to (train, eval, ablate: run_dir=DIR; export: out=DIR; the others: --out DIR)"
)
AGAIN = "make room, then run the same command again"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
CLOSED = (errno.EACCES, errno.EPERM)
WHAT_TO_DO = {
    errno.EROFS: f"that disk is mounted read-only: {ELSEWHERE}",
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "that is a folder, and a file was looked for",
    errno.EEXIST: f"something of that name is there already: move it away, or {ELSEWHERE}",
    errno.ENAMETOOLONG: f"that name is too long for the disk: {ELSEWHERE}",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "this process has too many files open: raise `ulimit -n`",
    errno.ENFILE: "the machine has too many files open",
    errno.ESTALE: "the network file system has lost it: look at the mount",
    errno.ENOTCONN: "the network file system is not connected: look at the mount",
    errno.EBUSY: "it is in use",
    errno.EINVAL: "the file system does not take such a name, or such a write",
}


class PathError(UserError):
    """A file or folder that was named, or lies in one that was, cannot be used."""


class DiskRefuses(PathError):  # noqa: N818 (a sentence for the user)
    """Nothing is wrong with what was asked for, so exit code 1: the same command works once there is room."""

    exit_code = 1


@contextlib.contextmanager
def path_border() -> Iterator[None]:
    """Turns errors of the system about a path, and whatever a full disk makes of a write, into a sentence."""
    try:
        yield
    except Exception as error:
        if (said := path_error(error)) is None:
            raise
        raise said from error


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Around the code of others that writes there: what it makes of a full disk names no file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or (why := refusal(error)) is None:
            raise
        raise DiskRefuses(_full(str(place), why)) from error


@contextlib.contextmanager
def stdout_border() -> Iterator[None]:
    """What the block has printed was taken by standard output when it ends.

    Raises:
        OSError: it was not.
    """
    stream, sys.stdout = sys.stdout, cast(TextIO, Naming(sys.stdout))
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename == STDOUT and error.errno in REFUSALS:
            stream = Path(os.devnull).open("w")  # noqa: SIM115 (or Python tries once more at its end, and complains)
        raise
    finally:
        sys.stdout = stream


def path_error(error: BaseException) -> PathError | None:
    """What to say about it; None where it is about something else, such as a network or a bug."""
    if isinstance(error, BrokenPipeError | UserError):  # the reader of our output has left; a sentence already
        return None
    if isinstance(error, ValueError) and isinstance(error.__cause__, OSError):  # logging wraps what its files meet
        error = error.__cause__
    if isinstance(error, OSError) and error.filename is not None and error.errno is not None:
        return _about(os.fsdecode(error.filename), error.errno)
    if (why := refusal(error)) is not None:
        return DiskRefuses(f"the disk refused a write: {why}; {AGAIN}")
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return PathError("a path begins with ~, and there is no such home folder: write it out, or set HOME")
    return None


def _about(name: str, number: int) -> PathError | None:
    why, path = os.strerror(number), Path(name)
    if name == STDOUT:
        return DiskRefuses(f"standard output cannot be written: {why}; what was to be shown is lost")
    if number in FULL:
        return DiskRefuses(_full(name, why))
    if number in CLOSED:
        return PathError(f"{name}: {why}{_whose(path)}; let its owner open it to you, or use another folder")
    if number == errno.ENOTDIR:
        return PathError(f"{name}: {_file_in(path)} is a file, not a folder; {ELSEWHERE}")
    return PathError(f"{name}: {WHAT_TO_DO[number]}") if number in WHAT_TO_DO else None


def _full(name: str, why: str) -> str:
    return f"{name} cannot be written: {why} ({in_bytes(free_bytes(Path(name)))} free there); {AGAIN}"


def _whose(path: Path) -> str:
    """Of the path, or of the nearest folder above it that can be looked at."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            found = place.stat()
            mode = f"{found.st_mode & 0o7777:03o}"
            return f" ({place} belongs to {_user(found.st_uid)}, mode {mode}; you are {_user(os.geteuid())})"
    return ""


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _file_in(path: Path) -> Path:
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            if place.exists() and not place.is_dir():
                return place
    return path
