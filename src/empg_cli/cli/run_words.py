"""Commands about one run, `empg COMMAND run=DIR key=value`: words of the command's own, and words about the run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from empg_cli.config.compose import INVALID, validate
from empg_cli.config.job import load_job
from empg_cli.config.node import Node
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import EvalConfig
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.own_config import primary_config, run_given

if TYPE_CHECKING:
    from omegaconf import DictConfig

READ = ("run", "checkpoint", "model.path", "benchmark.target")
"""Keys of `empg eval` that say which weights are meant, and whose code is trusted."""

Own = TypeVar("Own", bound=Node)


def own_and_run(
    command: str, overrides: Sequence[str], own: type[Own], *, example: str, also: Sequence[str] = ()
) -> tuple[Own, Path, EvalConfig]:
    """
    Args:
        command: its name, for messages.
        own: settings of the command itself.
        example: what to type, where there is no run.
        also: further keys of `empg eval` that the command reads.

    Returns:
        The command's own settings, the folder given as run, and the run's configuration as `empg eval` has it.

    Raises:
        ConfigError: a word is not read, no run is named, or a value is wrong.
    """
    read = (*READ, *also)
    mine = [word for word in overrides if _key(word) in own.model_fields]
    about_run = [word for word in overrides if _key(word) not in own.model_fields]
    given = run_given(about_run)
    if given is None:
        raise ConfigError(INVALID, [Problem("run", "must name the folder of a run", hint=example)])
    settings = validate(_values(mine, _texts(own)), own)
    folder = find_run_folder(given)
    cfg = load_job(primary_config("eval", folder, about_run), about_run, EvalConfig)
    if unread := [word for word in about_run if "=" in word and _key(word) not in read]:
        hint = f"takes {', '.join((*read, *own.model_fields))}"
        what = f"is not read by empg {command}"
        raise ConfigError(INVALID, [Problem(_key(word), what, hint=hint) for word in unread])
    return settings, given, cfg


def own_words(command: str, overrides: Sequence[str], own: type[Own], *, example: str) -> Own:
    """The settings of a command that reads nothing else.

    Args:
        example: what to type, where something is missing.

    Raises:
        ConfigError: a word is not read, or a value is wrong.
    """
    hint = f"takes {', '.join(f'{name}=...' for name in own.model_fields)}"
    what = f"is not read by empg {command}"
    if unread := [word for word in overrides if "=" not in word or _key(word) not in own.model_fields]:
        raise ConfigError(INVALID, [Problem(_key(word), what, hint=hint) for word in unread])
    given = {_key(word) for word in overrides}
    if missing := [name for name, field in own.model_fields.items() if field.is_required() and name not in given]:
        raise ConfigError(INVALID, [Problem(name, "must be given", hint=example) for name in missing])
    return validate(_values(overrides, _texts(own)), own)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _texts(own: type[Node]) -> set[str]:
    """Keys whose values are texts whatever they look like: a folder is never a number."""
    return {name for name, field in own.model_fields.items() if field.annotation in (str, str | None)}


def _values(words: Sequence[str], texts: Collection[str]) -> DictConfig:
    from omegaconf import OmegaConf

    plain: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
    values: dict[str, object] = {}
    for word in words:
        key, text = _key(word), word.partition("=")[2].replace("${", r"\${")
        if key in texts:
            values[key] = text
        elif text in plain:
            values[key] = plain[text]
        else:
            values[key] = int(text) if text.isdecimal() else text
    return OmegaConf.create(values)
