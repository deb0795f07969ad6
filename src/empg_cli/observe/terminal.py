"""Text for people: other people's text made harmless, and written to whatever a stream can show."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, TextIO

from empg_cli.files import naming

STDOUT = "<stdout>"
"""How Python names it."""

# CSI (colours, cursor), OSC and its kin up to BEL or ST (window titles, links), then any other two-byte escape.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?", re.DOTALL)
# C0 and C1 controls, the marks that turn the direction of text around, and what stands for bytes that are not UTF-8 in
# the name of a file.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Without escape sequences and control characters (tab and newline stay): a model or a task file may write both.
    What is left can be encoded."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ESCAPE.sub("", text))


def is_live_terminal(stream: TextIO) -> bool:
    """A person watches, and the cursor can move back."""
    return stream.isatty() and os.environ.get("TERM", "dumb").lower() not in ("dumb", "unknown")


def write_line(stream: TextIO, line: str) -> None:
    """A line in whatever encoding the stream has; characters it lacks become question marks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()


class _Around:
    """A stream, but for what a class below does otherwise."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Naming(_Around):
    """Standard output whose errors name it."""

    def write(self, text: str) -> int:
        with naming(STDOUT):
            return self._stream.write(text)

    def flush(self) -> None:
        with naming(STDOUT):
            self._stream.flush()


class Forgiving(_Around):
    """Standard error that goes on where nobody can be told anything any more: closed, or a file on a full disk."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def duration(seconds: float) -> str:
    """`0:04:09`; `2d 03:00:00` from a day on."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, minutes, left = rest // 3600, rest // 60 % 60, rest % 60
    return f"{days}d {hours:02}:{minutes:02}:{left:02}" if days else f"{hours}:{minutes:02}:{left:02}"
