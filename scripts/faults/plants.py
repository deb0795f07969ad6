"""Faults that are put into the code of a forked command before it begins: at the n-th call of a function."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection
from typing import Any


def at_call(where: str, number: int, does: Callable[[], object]) -> Callable[[], None]:
    """A plant: `does` runs before call `number` (from 1) of the function.

    Args:
        where: `module:name` or `module:class.name`, where the callers look it up.
    """

    def around(call_number: int, call: Callable[[], Any]) -> Any:
        if call_number == number:
            does()
        return call()

    return lambda: _plant(where, around)


def _plant(where: str, around: Callable[[int, Callable[[], Any]], Any]) -> None:
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *above, name = path.split(".")
    for part in above:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    calls = 0

    def planted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return around(calls, lambda: original(*arguments, **options))

    setattr(owner, name, planted)


def sends(signum: int) -> Callable[[], None]:
    """The process gets a signal."""
    return lambda: os.kill(os.getpid(), signum)


def replaces(where: str, changed: Callable[[Any], Any], calls: Collection[int] | None = None) -> Callable[[], None]:
    """A plant: what these calls of the function return is changed; None = all calls."""

    def around(number: int, call: Callable[[], Any]) -> Any:
        result = call()
        return changed(result) if calls is None or number in calls else result

    return lambda: _plant(where, around)
