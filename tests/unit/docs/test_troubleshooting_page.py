"""Every message that docs/troubleshooting.md quotes stands in the source, with holes where it has holes."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
HOLE = "\0"


@cache
def texts() -> list[str]:
    """All strings of the source; what is filled in later is a hole."""
    found = []
    for path in (ROOT / "src" / "empg_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    found.append(re.sub(r"%[sdgf]|%\.\d[a-z]|\{\w*(?::[^{}]*)?\}", HOLE, text))
                case ast.JoinedStr(values=parts):
                    found.append("".join(str(p.value) if isinstance(p, ast.Constant) else HOLE for p in parts))
    return found


def is_said(message: str) -> bool:
    return any(holds(text, message.split("...")) for text in texts())


def holds(text: str, pieces: Sequence[str]) -> bool:
    """One piece after the other; a regular expression for it takes seconds."""
    at = 0
    for piece in pieces:
        if (found := text.find(piece, at)) < 0:
            return False
        at = found + len(piece)
    return True


def test_pieces_follow_each_other() -> None:
    assert holds("one two three", ["one", "three"]) and holds("one one", ["", "one", "one", ""])
    assert not holds("one two three", ["three", "one"]) and not holds("one", ["one", "one"])


@pytest.mark.parametrize("message", QUOTED)
def test_the_message_is_in_the_source(message: str) -> None:
    assert is_said(message), f"nothing in src/empg_cli says {message!r}"


def test_every_message_has_a_cure_below_it() -> None:
    sections = re.split(r"^#+ .*$", PAGE, flags=re.MULTILINE)
    assert len(QUOTED) > 35 and len(set(QUOTED)) == len(QUOTED)
    bodies = re.findall(r"^### `[^\n]+`\n\n(.+?)(?=\n\n#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert len(bodies) == len(QUOTED) and all(len(body.split()) > 6 for body in bodies)
    assert len(sections) > len(QUOTED)


def test_what_nobody_says_is_noticed() -> None:
    assert not is_said("does not fit into the ocean of ...")
    assert is_said("already holds a run: go on with ...")
