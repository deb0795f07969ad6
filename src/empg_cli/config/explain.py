"""Errors of pydantic, Hydra and OmegaConf as problems that name the key, the value and what is allowed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from empg_cli.config.keys import Choice, dotted, known_keys, presets, readers
from empg_cli.config.location import groups
from empg_cli.config.problems import Problem, did_you_mean, nearest
from empg_cli.extras import PLUGIN_EXTRAS, install_command

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

MISSING = "must be given"


def from_pydantic(error: ValidationError, schema: type[BaseModel], values: dict[str, Any]) -> list[Problem]:
    return [_from_detail(detail, schema, values) for detail in error.errors(include_url=False)]


def _from_detail(detail: ErrorDetails, schema: type[BaseModel], values: dict[str, Any]) -> Problem:
    key, model = dotted(schema, detail["loc"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden" if key in groups() and key not in known_keys(schema):
            first = f"a file in {key}/ has the first line `# @package _global_`"
            return Problem(key, "is no part of a configuration", hint=first)
        case "extra_forbidden":
            return unknown_key(schema, key, values, _shown(detail["input"]), drop=f"drop it: ~{key}")
        case "missing":
            return Problem(key, MISSING, hint=f"add +{key}=VALUE")
        case "union_tag_invalid" | "union_tag_not_found":
            tag = str(context["discriminator"]).strip("'()")
            allowed = _words(str(context.get("expected_tags", "")))
            got = str(context["tag"]) if "tag" in context else None
            hint = did_you_mean(got, allowed) if got else None
            return Problem(f"{key}.{tag}", f"must be {_either(allowed)}" if allowed else MISSING, got, hint)
        case "literal_error":
            allowed = _words(str(context["expected"]))
            return Problem(
                key,
                f"must be {_either(allowed)}",
                _shown(detail["input"]),
                did_you_mean(str(detail["input"]), allowed),
            )
        case "value_error":
            return _from_validator(key, model, str(context["error"]))
        case "string_pattern_mismatch" if key == "trainer.device":
            return Problem(key, "must be auto, cpu, cuda or cuda:N", _shown(detail["input"]))
    what = detail["msg"][0].lower() + detail["msg"][1:]
    return Problem(key, what.replace("input should be", "must be"), _shown(detail["input"]))


def _from_validator(key: str, model: type[BaseModel] | None, message: str) -> Problem:
    """The schema's own checks say `key must ...` or `key (value) must ...`; the key is seen from their model."""
    said = re.fullmatch(r"([\w.]+)(?: \((\S+)\))? (.+)", message, re.DOTALL)
    if said and model is not None and said[1].split(".")[0] in model.model_fields:
        return Problem(f"{key}.{said[1]}" if key else said[1], said[3], said[2])
    return Problem(key, message)


def unknown_key(
    schema: type[BaseModel], key: str, values: dict[str, Any], got: str | None = None, *, drop: str
) -> Problem:
    """A key that the composed configuration does not have, or that the active choice does not read.

    Args:
        values: the composed configuration; tells which choice is active.
        drop: how to get rid of the key, for a choice that does not read it.
    """
    if (active := _excluded_by(schema, key, values)) is not None:
        return _not_read(active, readers(schema, key), key, values, got, drop)
    if key in known_keys(schema):
        return Problem(key, "is not in the composed configuration", got, f"add it with a plus: +{key}={got or 'VALUE'}")
    if key in groups():
        return Problem(key, "is a config group of another command, and not read by this one", got, drop)
    choices = [*known_keys(schema), *groups()]
    hint = did_you_mean(key, choices)
    for near in nearest(key, choices)[:1]:
        if _excluded_by(schema, near, values) is not None:
            hint = f"{hint} It is {_read_with(readers(schema, near))}"
    return Problem(key, "unknown key", got, hint)


def _excluded_by(schema: type[BaseModel], key: str, values: dict[str, Any]) -> Choice | None:
    """The active choice, where it does not read the key; None for a key that is read, or that no choice decides."""
    choices = readers(schema, key)
    if not choices:
        return None
    active = Choice(choices[0].key, str(_select(values, choices[0].key)))
    return None if active in choices else active


def _read_with(choices: list[Choice]) -> str:
    ways = [way for choice in choices for way in (presets(choice) or [str(choice)])]
    return f"read with {_either([str(choice) for choice in choices])}: choose {_either(ways)}"


def _not_read(
    active: Choice, choices: list[Choice], key: str, values: dict[str, Any], got: str | None, drop: str
) -> Problem:
    group = key.split(".")[0]
    name = _select(values, f"{group}.name")
    preset = f"{group}={name} has " if name else ""
    return Problem(key, f"is not read: {preset}{active}", got, f"it is {_read_with(choices)}, or {drop}")


def from_override(error: Exception, override: str, schema: type[BaseModel], values: dict[str, Any]) -> Problem:
    """Why Hydra refused one override.

    Args:
        override: as written on the command line.
        values: the configuration composed without it.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    left, _, right = override.partition("=")
    key = left.lstrip("+~").split("@")[0]
    if isinstance(error, OverrideParseException):
        return Problem(override, "is not in Hydra's override syntax", hint="quote special characters: 'key=\"a, b\"'")
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        if option == right or not group:
            return unknown_option(key, right, list(error.options))
        inner = unknown_option(group, option, list(error.options))
        return Problem(key, f"{right} names what is not there: {inner}")
    reason = first_line(error)
    if left.startswith("~"):
        return Problem(
            key, "cannot be removed: it is not there", hint=did_you_mean(key, [*known_keys(schema), *groups()])
        )
    if left.startswith("+"):
        if "already" in reason or "append" in reason:
            return Problem(key, "is there already", hint=f"leave the plus out: {override.lstrip('+')}")
        return Problem(key, reason)
    if "not in struct" in reason or "Could not override" in reason:
        return unknown_key(schema, key, values, right, drop="leave it out")
    return Problem(key, reason)


def unknown_option(group: str, option: str, options: list[str]) -> Problem:
    extra = PLUGIN_EXTRAS.get(group, {}).get(option)
    if extra:
        return Problem(group, f"{option!r} is not installed", hint=f"install it with: {install_command(extra)}")
    choose = f"choose one of: {', '.join(options)}"
    near = did_you_mean(option, options)
    return Problem(group, f"has no option {option!r}", hint=f"{near} {choose}" if near else choose)


def from_interpolation(error: Exception) -> Problem:
    """A value that cannot be resolved: an interpolation to nowhere, a mandatory value left open."""
    return Problem(str(getattr(error, "full_key", None) or ""), first_line(error))


def first_line(error: Exception) -> str:
    """What it says, and what its cause says; Hydra ends a line with a colon where the next one says why."""
    found = []
    for part in (error, error.__cause__):
        lines = [line.strip() for line in str(part or "").splitlines() if line.strip()]
        found.append(" ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1]))
    return " ".join(dict.fromkeys(filter(None, found))) or type(error).__name__


def _select(values: dict[str, Any], key: str) -> Any:
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _shown(value: Any) -> str | None:
    if isinstance(value, dict | list):
        return None
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
