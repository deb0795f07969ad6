"""From the bytes of a message to plain data, and from that to what was asked for, whatever the bytes are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from empg_cli.services.errors import BadAnswerError

T = TypeVar("T")

MAX_DEPTH: Final = 64
"""Of lists and objects in each other; no service of ours needs ten."""
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class NotJsonError(ValueError):
    """Says what the bytes are not."""


def parse_json(body: bytes) -> Any:
    """The data in a JSON text, of strings that can be written as UTF-8: half a character becomes U+FFFD.

    Raises:
        NotJsonError: it is none, or deeper than `MAX_DEPTH`.
    """
    try:
        return _plain(json.loads(body), MAX_DEPTH)
    except NotJsonError:
        raise
    except RecursionError:
        raise NotJsonError(_TOO_DEEP) from None
    except ValueError:
        raise NotJsonError(f"not JSON: {body[:80]!r}") from None


def read_answer(body: bytes, read: Callable[[Any], T]) -> T:
    """What `read` makes of the JSON in an answer; whatever it stumbles over, the answer has another form.

    Raises:
        BadAnswerError: that, or it is no JSON.
    """
    try:
        answer = parse_json(body)
    except NotJsonError as error:
        raise BadAnswerError(f"the answer is {error}") from None
    try:
        return read(answer)
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise BadAnswerError(f"the answer has an unknown form: {str(answer)[:120]}") from None


_TOO_DEEP: Final = f"JSON with lists and objects more than {MAX_DEPTH} deep in each other"


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if not isinstance(value, list | dict):
        return value
    if not depth:
        raise NotJsonError(_TOO_DEEP)
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    return {_SURROGATES.sub("\ufffd", key): _plain(item, depth - 1) for key, item in value.items()}
