"""`config.yaml` of a run folder: what the run was asked to do, read as a configuration of today."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from empg_cli.config.problems import ConfigError, Problem
from empg_cli.runs.format import migrated
from empg_cli.runs.run_file import check_readable

if TYPE_CHECKING:
    from empg_cli.config.schema import TrainConfig

CONFIG_FILE = "config.yaml"


def is_run(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


def find_run_folder(path: Path) -> Path:
    """The run folder that `path` is, or lies in (a checkpoint)."""
    for folder in (path, *path.resolve().parents[:2]):
        if is_run(folder):
            return folder
    what = f"has no {CONFIG_FILE}, nor do the two folders above it" if path.is_dir() else "no such folder"
    raise ConfigError("Not a run", [Problem(str(path), what, hint="give a run folder, or a checkpoint inside of one")])


def saved_values(folder: Path) -> dict[str, Any]:
    """The saved configuration as plain data, with the keys of today.

    Raises:
        ConfigError: the file is broken.
        FromTheFuture: a newer empg has made the folder.
    """
    check_readable(folder)
    try:
        values = yaml.load((folder / CONFIG_FILE).read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = f"is not readable YAML ({' '.join(str(error).split())})"
        raise ConfigError("Not a run", [Problem(str(folder / CONFIG_FILE), what)]) from error
    if not isinstance(values, dict):
        raise ConfigError("Not a run", [Problem(str(folder / CONFIG_FILE), "is not a configuration")])
    return migrated(values)


def saved_config(folder: Path) -> TrainConfig:
    """The same, validated."""
    from omegaconf import OmegaConf

    from empg_cli.config.compose import validate
    from empg_cli.config.schema import TrainConfig

    return validate(OmegaConf.create(saved_values(folder)), TrainConfig)


class _Loader(yaml.SafeLoader):
    """Takes 1e-5 for a number, as Hydra does: YAML 1.1 wants a dot in it."""


_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
