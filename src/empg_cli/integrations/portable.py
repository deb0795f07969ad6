"""Paths of this machine in what is published: only their last name stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

_PART = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\\.|[^\\,\[\]{}()'"])+""")
"""Of a list, a mapping or a quotation, as Hydra and YAML write them."""
_BEGINS = re.compile(
    r"(?P<scheme>\b(?:file|sqlite)(?:\+\w+)?:)(?=[/~.])|"
    r"(?:^|(?<=[\s=:]))(?:/(?=[^/\s])|~[\w.-]*(?=/|$)|[^\s=:]*(?<![^/\s=:])\.\.(?=/))"
)
"""An absolute path, one of a home, one that leads out of the current folder; not what follows http://host."""


def portable(value: Any) -> Any:
    """A copy of plain data whose texts name no folders."""
    match value:
        case str():
            is_a_path = (found := _BEGINS.match(value)) and not found["scheme"]
            return _cut(value) if is_a_path else _PART.sub(_cut_part, value)
        case Mapping():
            return {key: portable(item) for key, item in value.items()}
        case list() | tuple():
            return [portable(item) for item in value]
        case _:
            return value


def portable_word(word: str) -> str:
    """Of a command line, `key=value` in Hydra's grammar, or a deletion."""
    key, equals, value = word.partition("=")
    return key + equals + _PART.sub(_cut_part, value) if equals else word


def _cut_part(found: re.Match[str]) -> str:
    part = found[0]
    if part[0] in "'\"":
        return part[0] + _cut(part[1:-1]) + part[-1]
    return _cut(part)


def _cut(text: str) -> str:
    """What follows the beginning of a path is taken for a part of it: names may hold blanks."""
    if (found := _BEGINS.search(text)) is None:
        return text
    scheme = found["scheme"] or ""
    return f"{text[: found.start()]}{scheme}…/{PurePath(text[found.end('scheme') if scheme else found.start() :]).name}"
