"""Text for people: other people's text made harmless, and written to whatever a stream can show."""

from __future__ import annotations

import os
import re
from typing import TextIO

# CSI (colours, cursor), OSC and its kin up to BEL or ST (window titles, links), then any other two-byte escape.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?", re.DOTALL)
# C0 and C1 controls, and the marks that turn the direction of text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Without escape sequences and control characters (tab and newline stay): a model or a task file may write both."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ESCAPE.sub("", text))


def is_live_terminal(stream: TextIO) -> bool:
    """A person watches, and the cursor can move back."""
    return stream.isatty() and os.environ.get("TERM", "dumb").lower() not in ("dumb", "unknown")


def write_line(stream: TextIO, line: str) -> None:
    """A line in whatever encoding the stream has; characters it lacks become question marks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()


def duration(seconds: float) -> str:
    """`0:04:09`; `2d 03:00:00` from a day on."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, minutes, left = rest // 3600, rest // 60 % 60, rest % 60
    return f"{days}d {hours:02}:{minutes:02}:{left:02}" if days else f"{hours}:{minutes:02}:{left:02}"
