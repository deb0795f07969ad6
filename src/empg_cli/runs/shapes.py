"""JSON files read back: whatever bytes a file holds, it is data of the shape that was asked for, or one sentence that
names file and place. Shapes are types that pydantic knows; what an open shape does not name stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from empg_cli.errors import DataError

Shape = TypeVar("Shape")

OPEN = ConfigDict(extra="allow")
"""`__pydantic_config__` of an open shape."""
MEND = "restore the file from a copy"


def read_json(path: Path, shape: type[Shape], *, mend: str = MEND, finite: bool = True) -> Shape:
    """
    Args:
        mend: what to do where it is broken.
        finite: numbers that JSON does not have (NaN, infinity) are refused.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    return _parsed(path, _bytes(path), shape, "", mend, finite=finite)


def read_json_lines(path: Path, shape: type[Shape], *, mend: str = MEND) -> Iterator[Shape]:
    """Of a file with an object a line. A last line without its end is one that a crash has cut: it is left out.

    Raises:
        DataError: as `read_json`, with the number of the line.
    """
    for number, line in enumerate(_bytes(path).splitlines(keepends=True), start=1):
        if line.endswith(b"\n"):
            yield _parsed(path, line, shape, f", line {number}", mend)


def check_shape(path: Path, values: Any, shape: type[Shape], *, mend: str = MEND) -> Shape:
    """Of what was read from a file in another way.

    Raises:
        DataError: it has another shape.
    """
    return _checked(path, lambda adapter: adapter.validate_python(values, strict=True), shape, "", mend)


def _parsed(path: Path, content: bytes, shape: type[Shape], place: str, mend: str, *, finite: bool = True) -> Shape:
    found = _checked(path, lambda adapter: adapter.validate_json(content, strict=True), shape, place, mend)
    if not finite:
        return found
    try:
        json.dumps(from_json(content), allow_nan=False)  # the quickest way to look at every number
    except ValueError:
        raise DataError(f"{path}{place}: has a number that is none (NaN, or beyond all numbers); {mend}") from None
    return found


def _checked(
    path: Path, validate: Callable[[TypeAdapter[Shape]], Shape], shape: type[Shape], place: str, mend: str
) -> Shape:
    try:
        adapter: TypeAdapter[Shape] = _adapter(cast(Any, shape))
        return validate(adapter)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        match first["type"]:
            case "json_invalid":
                what = f"is not readable JSON ({first['ctx']['error']})"
            case "dict_type" if not key:
                what = "must hold a JSON object"
            case _:
                what = first["msg"][0].lower() + first["msg"][1:]
        where = ": ".join(filter(None, (f"{path}{place}", key)))
        raise DataError(f"{where}{': ' if place or key else ' '}{what}; {mend}") from error


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    """Made once for a type: it costs a millisecond, and files have many lines."""
    return TypeAdapter(shape)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
