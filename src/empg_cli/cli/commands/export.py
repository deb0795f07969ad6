"""`empg export run=RUN out=DIR`: a run's policy for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from empg_cli.config.compose import INVALID, validate
from empg_cli.config.job import load_job
from empg_cli.config.node import Node
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import EvalConfig
from empg_cli.invocation import from_here
from empg_cli.observe.terminal import printable
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.own_config import primary_config, run_given
from empg_cli.runs.which_checkpoint import hold_checkpoint

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Written(Node):
    """What is written; all else is said of the run, as for `empg eval`."""

    out: str
    """A folder that is not there yet."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """null = as the run kept its weights."""
    adapter: bool = False
    """Of a run with model.lora: the adapter alone, not merged into the weights below."""


READ = ("run", "checkpoint", "model.path")
"""Keys of `empg eval` that say which weights are meant."""


def run(overrides: Sequence[str]) -> None:
    own = {_key(word): word.partition("=")[2] for word in overrides if _key(word) in Written.model_fields}
    about_run = [word for word in overrides if _key(word) not in Written.model_fields]
    given = run_given(about_run)
    if given is None:
        hint = "empg export run=runs/... out=FOLDER"
        raise ConfigError(INVALID, [Problem("run", "must name the folder of a run", hint=hint)])
    written = validate(_values(own), Written)
    if written.adapter and written.dtype is not None:
        raise ConfigError(INVALID, [Problem("dtype", "is not read when adapter=true", hint="leave it out")])
    folder = find_run_folder(given)
    cfg = load_job(primary_config("eval", folder, about_run), about_run, EvalConfig)
    if unread := [word for word in about_run if "=" in word and _key(word) not in READ]:
        hint = f"takes {', '.join((*READ, *Written.model_fields))}"
        raise ConfigError(INVALID, [Problem(_key(word), "is not read by empg export", hint=hint) for word in unread])
    from empg_cli.learner.export import export  # brings torch: seconds

    out = Path(written.out)
    with hold_checkpoint(given, cfg.checkpoint) as held:
        export(held.checkpoint, cfg.model, cfg.benchmark.name, out, dtype=written.dtype, adapter=written.adapter)
        print(printable(f"{from_here(held.checkpoint)} -> {from_here(out)}"))


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _values(own: Mapping[str, str]) -> DictConfig:
    """What stands behind each key as it is meant: a folder is never a number."""
    from omegaconf import OmegaConf

    plain = {"true": True, "false": False, "null": None}
    texts = {key: text.replace("${", r"\${") for key, text in own.items()}
    return OmegaConf.create({key: text if key == "out" else plain.get(text, text) for key, text in texts.items()})
