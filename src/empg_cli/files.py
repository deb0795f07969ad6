"""Files that are whole or absent, whenever a process or a machine dies, and where files are kept between runs."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

WriteText = Callable[[Path, str], None]
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of one, whenever the process or the machine dies."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_in_folder(path: Path, text: str) -> None:
    """The same in a folder that is made where it is missing; on the disk, name and all, when it returns."""
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text)
    sync(path.parent)


def check_writable(folder: Path) -> None:
    """Make the folder where it is missing, and a file in it that goes at once: before hours of work, not after.

    Raises:
        OSError: there can be none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder), tempfile.TemporaryFile(dir=folder):
        pass


def check_could_be_written(folder: Path) -> None:
    """What `check_writable` would find, as far as can be told without making anything.

    Raises:
        OSError: there can be none.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


@contextlib.contextmanager
def emptied(folder: Path, *, was_there: bool) -> Iterator[None]:
    """A folder that was made for a block that has put nothing there goes again."""
    try:
        yield
    finally:
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `write_atomically`, for a file that the block writes under the name that it is given."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path, instead_of=temporary):
            yield temporary
            sync(temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # what failed before says more
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path | str, *, instead_of: Path | None = None) -> Iterator[None]:
    """Errors of the system in the block name this file: a write names none by itself."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, os.fspath(instead_of or path)):
            error.filename = os.fspath(path)
        raise


def temporaries(folder: Path) -> list[Path]:
    """What a process that was killed in the middle of such a write has left."""
    return [path for path in paths_in(folder, ".*.tmp") if _TEMPORARY.fullmatch(path.name)]


def paths_in(folder: Path, pattern: str) -> list[Path]:
    """Sorted, by the pattern of their names; none where there is no such folder.

    Raises:
        OSError: it cannot be read. `Path.glob` takes such a folder for an empty one.
    """
    try:
        found = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in found if fnmatch.fnmatchcase(path.name, pattern)]


def sync(path: Path) -> None:
    """What was written to this file, or the names in this folder, are on the disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/empg`, else `~/.cache/empg`. Nobody has made it yet, and it may not be writable."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "empg"
    try:
        return Path.home() / ".cache" / "empg"
    except RuntimeError:  # a user that the machine does not know, as in containers: nothing can be kept
        return Path(os.devnull) / "no-home" / "empg"
