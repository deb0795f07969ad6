"""What the schema knows about a dotted key: whether it exists, and which choice reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from empg_cli.config.location import conf_dir, groups


@dataclass(frozen=True, slots=True)
class Choice:
    """A key that exists only when another key has this value: `algo.credit.kind` = `empg`."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def known_keys(schema: type[BaseModel]) -> list[str]:
    """Every dotted key that can be set, those of all choices included."""
    return list(dict.fromkeys(key for key, _ in _walk(schema)))


def settable(*schemas: type[BaseModel]) -> set[str]:
    """What may stand before `=` on a command line: keys of these schemas, and config groups."""
    return {key for schema in schemas for key in known_keys(schema)} | set(groups())


def readers(schema: type[BaseModel], key: str) -> list[Choice]:
    """The choices under which `key` exists; empty when no choice decides that."""
    return [choice for known, choice in _walk(schema) if known == key and choice is not None]


def presets(choice: Choice) -> list[str]:
    """Shipped config options that make this choice, as `algo=empg`, `algo=dapo_empg`."""
    group, _, inner = choice.key.partition(".")
    return [
        f"{group}={option}"
        for option in groups().get(group, [])
        if _lookup(option_values(group, option), inner) == choice.value
    ]


def dotted(schema: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, type[BaseModel] | None]:
    """A pydantic error location as the user's key, with the model it points at (None for a plain value).

    Pydantic puts the tag of a union into the location (algo.credit.empg.zeta); the user's key has no tag.
    """
    key, model = "", schema
    parts = iter(loc)
    current: type[BaseModel] | None = model
    for part in parts:
        if isinstance(part, int):
            key, current = f"{key}[{part}]", None
            continue
        key = f"{key}.{part}" if key else part
        field = current.model_fields.get(part) if current else None
        if field is None:
            current = None
        elif field.discriminator:
            tag = next(parts, None)
            current = next((variant for value, variant in variants(field) if value == tag), None)
        else:
            current = next(_models(field), None)
    return key, current


def _walk(
    model: type[BaseModel], prefix: str = "", choice: Choice | None = None
) -> Iterator[tuple[str, Choice | None]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if field.discriminator:
            yield key, choice
            tag = tag_key(field)
            for value, variant in variants(field):
                for inner, inner_choice in _walk(variant, f"{key}.", Choice(f"{key}.{tag}", value)):
                    yield inner, choice if inner == f"{key}.{tag}" else inner_choice
        else:
            yield key, choice
            for inner_model in _models(field):
                yield from _walk(inner_model, f"{key}.", choice)


def _models(field: FieldInfo) -> Iterator[type[BaseModel]]:
    yield from (model for model, _ in tagged(field))


def tagged(field: FieldInfo) -> Iterator[tuple[type[BaseModel], str | None]]:
    """The models of a field, each with the tag that a union gives it, if any."""
    for kind in (field.annotation, *get_args(field.annotation)):
        model, *marks = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield model, next((mark.tag for mark in marks if isinstance(mark, Tag)), None)


def tag_key(field: FieldInfo) -> str:
    """The key whose value chooses; a discriminator that is a function is named after it."""
    return field.discriminator if isinstance(field.discriminator, str) else field.discriminator.discriminator.__name__  # type: ignore[union-attr]


def variants(field: FieldInfo) -> Iterator[tuple[str, type[BaseModel]]]:
    key = tag_key(field)
    for variant, tag in tagged(field):
        for value in (tag,) if tag else get_args(variant.model_fields[key].annotation):
            yield value, variant


def option_values(group: str, option: str) -> dict[str, Any]:
    """The plain values of conf/<group>/<option>.yaml, with the options of the same group that it builds on."""
    import yaml

    loaded = yaml.safe_load((conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}
    values: dict[str, Any] = {}
    for base in loaded.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            _merge(values, option_values(group, base.removeprefix(f"/{group}/")))
    _merge(values, loaded)
    return values


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
