"""The schema in words: the type of a field with its bounds, and what the docstring under it says."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

Marks = list[Any] | tuple[Any, ...]
WORDS: dict[Any, str] = {str: "text", bool: "`true` or `false`", int: "integer", float: "number", dict: "mapping"}
VALIDATED = {"_address": "http(s) address", "_is_hardware": "`here`, `NxMGB` or `cpu-MGB`"}
"""Functions of the schema that check a text -> what passes."""
PATTERNS = {
    r"^(auto|cpu|cuda|cuda:\d+)$": "`auto`, `cpu`, `cuda` or `cuda:N`",
    r"^[A-Za-z0-9][A-Za-z0-9._+-]*$": "name of a folder",
}
"""The same for patterns; another one is shown as it is."""
SIGNS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


def type_words(field: FieldInfo) -> str:
    """`integer ≥ 1 or null`, `` `a` or `b` ``."""
    return _words(field.annotation, field.metadata)


def meaning(model: type[BaseModel] | None, name: str) -> str:
    """The docstring under a field, of the class or of the nearest one that it derives from; empty without one."""
    for base in inspect.getmro(model) if model is not None else ():
        if issubclass(base, BaseModel) and (said := _docstrings(base.__module__).get((base.__name__, name))):
            return said
    return ""


def meaning_of_class(model: type[BaseModel]) -> str:
    """Its own docstring on one line."""
    return " ".join((model.__dict__.get("__doc__") or "").split())


@cache
def _docstrings(module: str) -> dict[tuple[str, str], str]:
    """(Class, field) -> the text under it, of all classes of a module."""
    found = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            for field, below in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(below):
                    found[node.name, field.target.id] = " ".join(ast.literal_eval(below.value).split())  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _words(kind: Any, metadata: Marks = ()) -> str:
    origin = get_origin(kind)
    for mark in metadata:
        if isinstance(mark, AfterValidator) and mark.func.__name__ in VALIDATED:
            return VALIDATED[mark.func.__name__]
    if origin is Annotated:
        inner, *marks = get_args(kind)
        return _words(inner, marks)
    if origin in (Union, UnionType):
        named = [_words(part) for part in get_args(kind) if part is not NoneType]
        if not metadata and NoneType not in get_args(kind):
            return " or ".join(named)
        named[0] += _bounds(metadata)
        return " or ".join([*named, *(["null"] if NoneType in get_args(kind) else [])])
    if origin is Literal:
        names = [f"`{value}`" for value in get_args(kind)]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    if origin is list:
        return f"list of {_words(get_args(kind)[0])}{' (at least one)' if _shortest(metadata) else ''}"
    patterns = [pattern for mark in _flat(metadata) if (pattern := getattr(mark, "pattern", None))]
    if patterns:
        return PATTERNS.get(patterns[0], f"text like `{patterns[0]}`")
    return WORDS.get(origin or kind, "mapping") + _bounds(metadata)


def _bounds(metadata: Marks) -> str:
    """Of numbers."""
    found = [(sign, getattr(mark, name, None)) for name, sign in SIGNS for mark in _flat(metadata)]
    return ",".join(f" {sign} {value:g}" for sign, value in found if value is not None)


def _shortest(metadata: Marks) -> int:
    return max((getattr(mark, "min_length", 0) or 0 for mark in _flat(metadata)), default=0)


def _flat(metadata: Marks) -> list[Any]:
    """Pydantic's Field splits into several marks, or stays one."""
    return [inner for mark in metadata for inner in (mark.metadata if isinstance(mark, FieldInfo) else (mark,))]
