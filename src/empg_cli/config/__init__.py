"""Configuration: conf/ composed by Hydra, then validated by pydantic before anything heavy happens.

Importing this package loads neither Hydra nor pydantic; the functions do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from empg_cli.files import write_atomically

if TYPE_CHECKING:
    from empg_cli.config.schema import EvalConfig, TrainConfig

__all__ = ["load", "read", "write"]


@overload
def load(overrides: Sequence[str] = (), config_name: Literal["train"] = "train") -> TrainConfig: ...
@overload
def load(overrides: Sequence[str], config_name: Literal["eval"]) -> EvalConfig: ...
def load(overrides: Sequence[str] = (), config_name: Literal["train", "eval"] = "train") -> TrainConfig | EvalConfig:
    """Compose and validate without running anything: `load(["algo=grpo", "trainer.lr=1e-5"])`.

    Raises ConfigError with every problem at once.
    """
    from empg_cli.config.job import load_job
    from empg_cli.config.schema import EvalConfig, TrainConfig

    if config_name == "train":
        return load_job("train", overrides, TrainConfig)
    return load_job("eval", overrides, EvalConfig)


def write(cfg: TrainConfig | EvalConfig, path: Path) -> None:
    """Save a resolved configuration as YAML; `read` gives it back."""
    from omegaconf import OmegaConf

    write_atomically(path, OmegaConf.to_yaml(OmegaConf.create(cfg.model_dump())))


def read(path: Path) -> TrainConfig:
    """The configuration that a run folder holds in config.yaml. Code that it names is not imported."""
    from omegaconf import DictConfig, OmegaConf

    from empg_cli.config.compose import INVALID, validate
    from empg_cli.config.problems import ConfigError, Problem
    from empg_cli.config.schema import TrainConfig

    cfg = OmegaConf.load(path)
    if not isinstance(cfg, DictConfig):
        raise ConfigError(INVALID, [Problem(str(path), "is not a configuration: it holds a list")])
    return validate(cfg, TrainConfig, imports=False)
