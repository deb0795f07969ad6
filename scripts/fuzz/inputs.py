"""Where inputs come from: good ones, changed in a few places, and texts made of the tokens that a parser looks for."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 7, 2**31, 2**63, -(2**70), 10**30, 0.5, 1e308, float("inf"), float("nan"), "", " ",
    "0", "²", "\u0000", "\ud800", "\u202e", "é", "İ", "a" * 70_000, "<action>", "nan", "1e999", [], {}, [[]],
    [None], [1, 2], ["x"],
    {"a": 1}, {"": ""}, [[[[[[[[[[]]]]]]]]]],
)  # fmt: skip
DEEP = (b"[" * 100_000, b'{"a":' * 50_000, b"(" * 200_000, b'[[[[{"a":[' * 5_000)
RANDOM = st.randoms(use_true_random=True)
"""Drawn from by hundreds for one input: a number at a time through hypothesis would take seconds."""


def changed_value(value: Any, random: Random) -> Any:
    """A JSON value with one to three nodes replaced, dropped, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, 3)):
        value = _changed_once(value, random)
    return value


def _changed_once(value: Any, random: Random) -> Any:
    if not isinstance(value, dict | list) or not value or random.random() < 0.1:
        return copy.deepcopy(random.choice(ODD))
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = random.choice(keys)
    match random.randrange(6):
        case 0:
            del value[key]
        case 1 if isinstance(value, list):
            value.insert(key, copy.deepcopy(value[key]))
        case 1:
            value[random.choice(["", "x", "id", "error", "\ud800", *keys])] = value.pop(key)
        case 2:
            value[key] = copy.deepcopy(random.choice(ODD))
        case _:
            value[key] = _changed_once(value[key], random)
    return value


def changed_bytes(content: bytes, random: Random, tokens: Sequence[bytes] = ()) -> bytes:
    """Bits flipped; pieces cut out, doubled, overwritten; the end cut off; tokens put in."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice([1, 2, 8, 100, 4000]))
        match random.randrange(9):
            case 0 | 1 | 2 if at < len(data):
                data[at] ^= 1 << random.randrange(8)
            case 3:
                del data[at:]
            case 4:
                del data[at:end]
            case 5:
                data[at:at] = data[at:end]
            case 6:
                data[at:end] = bytes(random.randrange(256) for _ in range(min(64, end - at)))
            case 7:
                data[at:at] = random.choice(
                    [*tokens, b"\xff", b"\xe9", b"\x00", b'"', b"\n", b"\xed\xa0\x80", b"{", b"]"]
                )
            case _:
                data[at:end] = bytes(end - at)
    return bytes(data)


def changed_json(value: Any, random: Random) -> bytes:
    """A JSON text of a changed value, sometimes broken as a text too; lone surrogates as escapes or as bytes."""
    if random.random() < 0.05:
        return random.choice(DEEP)
    as_ascii = random.random() < 0.5
    text = json.dumps(changed_value(value, random) if random.random() < 0.9 else value, ensure_ascii=as_ascii)
    content = text.encode("utf-8", "surrogatepass")
    if random.random() < 0.1:
        content = text.encode(random.choice(["utf-16", "utf-32", "utf-8-sig"]), "surrogatepass")
    return changed_bytes(content, random) if random.random() < 0.3 else content


def texts(*tokens: str) -> st.SearchStrategy[str]:
    """Texts of these tokens and anything else, now and then one of them a hundred thousand characters long."""
    piece = st.one_of(st.sampled_from(tokens), st.text(max_size=8), st.characters())
    mixed = st.lists(piece, max_size=30).map("".join)
    long = st.tuples(st.lists(st.sampled_from(tokens), min_size=1, max_size=3), mixed).map(
        lambda pair: ("".join(pair[0]) * (100_000 // len("".join(pair[0]) or " ")))[:100_000] + pair[1]
    )
    return st.one_of(mixed, mixed, mixed, long)
