"""Where our side of a verl run finds what it is to do: in the file that `trainer.v1.empg.config` names."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from empg_cli.config.compose import validate
from empg_cli.config.schema import TrainConfig
from empg_cli.config.yaml_files import read_mapping
from empg_cli.errors import UserError
from empg_cli.integrations.verl import SETTINGS


class Given(NamedTuple):
    """What verl's configuration says of ours."""

    config: str
    """A file with a training configuration."""
    prompt_date: date
    """That chat templates with a date show; the same for the whole run."""


def given(config: Any) -> Given:
    """
    Raises:
        UserError: it says nothing.
    """
    node = config.trainer.v1.get(SETTINGS) or {}
    if not (node.get("config") and node.get("prompt_date")):
        raise UserError(
            f"verl's trainer.v1.{SETTINGS} needs config=FILE and prompt_date=YEAR-MONTH-DAY, as run.sh of "
            "`empg verl out=FOLDER` gives them"
        )
    return Given(str(node["config"]), date.fromisoformat(str(node["prompt_date"])))


@lru_cache(maxsize=4)
def read(path: str) -> TrainConfig:
    """
    Raises:
        DataError: there is no such file, or it is broken.
        ConfigError: it is no configuration of `empg train`.
    """
    return validate(OmegaConf.create(read_mapping(Path(path))), TrainConfig)
