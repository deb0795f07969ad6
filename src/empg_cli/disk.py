"""What a disk refuses, told apart from every other error; how much room it has."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Full, over a quota, over `ulimit -f`, broken, or mounted read-only meanwhile."""
_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors, tokenizers and tantivy name an error of the system; none of theirs is an OSError."""
_NO_NUMBER = (
    re.compile(r"^\d+ requested and \d+ written$"),  # numpy
    re.compile(r"^(database or disk is full|disk I/O error|attempt to write a readonly database)$"),  # SQLite
    re.compile(r"io::Error most likely"),  # a thread of tantivy
)


def refusal(error: BaseException) -> str | None:
    """Why the disk did not take what was written; None where the error is another one.

    Looks at what the error came from, too: torch hides the error of the file that it writes to behind a RuntimeError.
    """
    for one in _with_origins(error):
        if isinstance(one, OSError) and one.errno in REFUSALS:
            return os.strerror(one.errno)
        if (found := _RUST.search(str(one))) and int(found[1]) in REFUSALS:
            return os.strerror(int(found[1]))
        if any(text.search(str(one)) for text in _NO_NUMBER):
            return os.strerror(errno.ENOSPC)
    return None


def free_bytes(path: Path) -> int:
    """Free on the disk that holds `path`, or would hold it: the nearest folder that exists is asked.

    A quota or `ulimit -f` may leave less.
    """
    for folder in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return 0


def in_bytes(count: int) -> str:
    """`4.1 MB`: three digits at most, in powers of 1000."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{count} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _with_origins(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or one.__context__
