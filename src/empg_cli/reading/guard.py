"""The border to bytes of others: whatever reading them raises becomes one message that says where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from empg_cli.errors import DataError

_PANIC = "PanicException"
"""What a package written in Rust raises where it gives up; no subclass of Exception."""


@contextmanager
def reading(where: object, hint: str = "") -> Iterator[None]:
    """Around the work on bytes that nobody has vouched for. Parsers raise anything, packages in C and Rust above all;
    every fault is one of the bytes. What this package raises itself passes as it is.

    Args:
        where: file and place, such as `games.zip: train/a/game.tw-pddl` or `test.csv, row 7`.
        hint: what to do, a sentence.

    Raises:
        DataError: for whatever was raised inside.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "empg_cli":
            raise
        raise damaged(where, reason_of(error), hint) from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise damaged(where, reason_of(error), hint) from error


def damaged(where: object, what: str, hint: str = "") -> DataError:
    """The one form of such a message."""
    return DataError(f"{where}: {what}" + (f". {hint}" if hint else ""))


def reason_of(error: BaseException) -> str:
    """What is wrong with the bytes, in words."""
    match error:
        case RecursionError():
            return "is nested too deep"
        case MemoryError():
            return "asks for more memory than there is"
        case UnicodeDecodeError():
            return f"not UTF-8 text: byte {error.start}: {error.reason}"
        case UnicodeEncodeError():
            return f"no text: half a character (a lone surrogate) at character {error.start}"
        case json.JSONDecodeError():
            return f"not valid JSON ({error})"
        case OSError() if error.strerror:
            return f"cannot be read ({error.strerror})"
        case KeyError():
            return f"{error} is missing"
        case _:
            first_line = str(error).strip().partition("\n")[0]
            return f"broken ({first_line or type(error).__name__})"


def json_of(source: str | bytes, where: object, hint: str = "") -> Any:
    """The value that a JSON text (bytes: UTF-8) holds.

    Raises:
        DataError: it is none, it is nested too deep, or a number has more digits than Python reads.
    """
    with reading(where, hint):
        return json.loads(source.decode("utf-8-sig") if isinstance(source, bytes) else source)


def plain_text(value: object, name: str) -> str:
    """A text that can be written and encoded.

    Raises:
        TypeError, UnicodeEncodeError: it is no text, or holds half a character; `reading` says where.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is {'missing' if value is None else type(value).__name__}, not text")
    if not value.isascii():
        value.encode()
    return value


def plain_texts(value: object, name: str) -> tuple[str, ...]:
    """A list of such texts."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} is {type(value).__name__}, not a list of texts")
    return tuple(plain_text(item, name) for item in value)
