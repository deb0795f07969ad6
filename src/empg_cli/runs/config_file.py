"""`config.yaml` of a run folder: what the run was asked to do, read as a configuration of today."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict

from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.yaml_files import read_mapping
from empg_cli.invocation import from_here, resume_command
from empg_cli.runs.format import migrated
from empg_cli.runs.run_file import check_readable, read_run_file
from empg_cli.runs.shapes import OPEN, check_shape

if TYPE_CHECKING:
    from empg_cli.config.schema import TrainConfig

CONFIG_FILE = "config.yaml"
CONFIG_DIGESTS = "config_digests"
"""Key of run.json: of every config.yaml that the run has written, the newest last."""


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


MEND = "restore it from a copy: .hydra/config.yaml beside it is what the run was started with"


class _Named(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    name: str


class _Benchmark(_Named):
    max_steps: NotRequired[int]


class _Trainer(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    updates: int


class SavedRun(TypedDict):
    """What reports read of a configuration. All of it is checked when it is composed again."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    seed: int
    model: _Named
    benchmark: _Benchmark
    algo: _Named
    rollout: dict[str, Any]
    trainer: _Trainer
    logger: NotRequired[dict[str, Any]]


CHECKPOINTS = "checkpoints"
"""The folder of a run that holds them."""


def is_run(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


def find_run_folder(path: Path) -> Path:
    """The run folder that `path` is, or lies in (a checkpoint): RUN/checkpoints/step-N as it is written first, as the
    checkpoints of a run may be a link to another disk."""
    written = path.absolute().parents[1:2] if path.absolute().parent.name == CHECKPOINTS else []
    for folder in (path, *written, *path.resolve().parents[:2]):
        if is_run(folder):
            return folder
    what = f"has no {CONFIG_FILE}, nor do the two folders above it" if path.is_dir() else "no such folder"
    raise ConfigError("Not a run", [Problem(str(path), what, hint="give a run folder, or a checkpoint inside of one")])


def saved_values(folder: Path) -> dict[str, Any]:
    """The saved configuration as plain data, with the keys of today.

    Raises:
        DataError: the file is broken.
        ConfigError: it was changed since the run wrote it.
        FromTheFuture: a newer empg has made the folder.
    """
    check_readable(folder)
    path = folder / CONFIG_FILE
    values = read_mapping(path)
    known = read_run_file(folder).get(CONFIG_DIGESTS)
    if known and digest_of(path.read_bytes()) not in known:
        hint = f"put it back from a copy; what may change goes behind `{resume_command(from_here(folder))}`"
        raise ConfigError("Not as the run wrote it", [Problem(str(path), "was changed", hint=hint)])
    return migrated(values)


def saved_run(folder: Path) -> dict[str, Any]:
    """The same, with the parts that every run has.

    Raises:
        DataError: the file is broken, or not of a training run.
        ConfigError: it was changed since the run wrote it.
        FromTheFuture: a newer empg has made the folder.
    """
    return dict(check_shape(folder / CONFIG_FILE, saved_values(folder), SavedRun, mend=MEND))


def saved_config(folder: Path) -> TrainConfig:
    """The same, validated."""
    from omegaconf import OmegaConf

    from empg_cli.config.compose import validate
    from empg_cli.config.schema import TrainConfig

    return validate(OmegaConf.create(saved_values(folder)), TrainConfig)
