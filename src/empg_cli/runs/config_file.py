"""`config.yaml` of a run folder: what the run was asked to do, read as a configuration of today."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from empg_cli.config.problems import ConfigError, Problem
from empg_cli.runs.format import migrated
from empg_cli.runs.run_file import check_readable, read_run_file

if TYPE_CHECKING:
    from empg_cli.config.schema import TrainConfig

CONFIG_FILE = "config.yaml"
CONFIG_DIGESTS = "config_digests"
"""Key of run.json: of every config.yaml that the run has written, the newest last."""


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


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
        ConfigError: the file is broken, or was changed since the run wrote it.
        FromTheFuture: a newer empg has made the folder.
    """
    check_readable(folder)
    text = (folder / CONFIG_FILE).read_bytes()
    known = read_run_file(folder).get(CONFIG_DIGESTS)
    if known and digest_of(text) not in known:
        hint = "put it back from a copy; what may change is given to `empg train --resume` on the command line"
        raise ConfigError("Not as the run wrote it", [Problem(str(folder / CONFIG_FILE), "was changed", hint=hint)])
    try:
        values = yaml.load(text.decode("utf-8"), _Loader)
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
