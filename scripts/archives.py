"""Archives of files that are only in memory, for the faults and the fuzzing of readers."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Any


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tar_of(members: dict[str, bytes], suffix: str) -> bytes:
    """
    Args:
        suffix: `tar`, `tar.gz`, `tar.xz`, with or without the dot before it.
    """
    file = io.BytesIO()
    mode: Any = "w" + suffix.removeprefix(".").removeprefix("tar").replace(".", ":")
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
