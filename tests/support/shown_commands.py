"""An `empg` command as a page shows it: parsed by our own parser, its settings composed and validated."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer

from empg_cli import config
from empg_cli.cli.app import app
from empg_cli.cli.commands import play
from empg_cli.cli.commands.export import Written
from empg_cli.config import load, location
from empg_cli.config.command_line import check_command_line
from empg_cli.config.job import load_job
from empg_cli.config.plan import PlanConfig
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.integrations.verl.words import refused
from empg_cli.runs.own_config import primary_config
from empg_cli.studies.plan import make_study

PLACEHOLDERS = {"URL": "http://127.0.0.1:1/v1", "NAME": "name", "VARIABLE": "SOME_KEY", "N": "1"}
"""Words in capitals that are no folders; all others are."""
BENCHMARKS = ("alfworld", "webshop", "deepsearch")
IN_PLACE = {"benchmark.data_dir", "benchmark.retrieval.index_dir", "model.path"}
PLUGINS = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper")
"""Of packages that need not be there."""


def check(command: str) -> None:
    """In an empty current folder: what the command names is made.

    Raises:
        ConfigError, SystemExit or an error of the parser's: the command is wrong.
    """
    for name, value in PLACEHOLDERS.items():
        command = re.sub(rf"\b{name}\b", value, command)
    _, name, *words = shlex.split(command)
    group: Any = typer.main.get_command(app)
    parser = group.commands[name]
    if hasattr(parser, "commands"):
        parser = parser.commands[words.pop(0)]
    if words in (["--help"], ["--version"]):
        return
    given = parser.make_context(name, list(words)).params
    groups = ("name", *(f"{group}=name" for group in location.groups()))
    overrides = [word for word in given.get("overrides") or [] if word not in groups]  # of an option that is not named
    _make_what_is_named(overrides)
    if name in CHECKS:
        CHECKS[name](given, overrides)


def _train(given: dict[str, Any], overrides: list[str]) -> None:
    if given["resume"] is not None:
        _of_some_run(
            given["resume"], lambda run: load_job(primary_config("train", run, overrides), overrides, TrainConfig)
        )
    elif given["config_name"] is not None or given["info"]:
        return
    elif given["multirun"]:
        check_command_line("train", _without_plugins(overrides), TrainConfig, multirun=True)
    else:
        load_job("train", _without_plugins(overrides), TrainConfig, given["config_dir"])


def _eval(given: dict[str, Any], overrides: list[str]) -> None:
    if given["compare"] is not None:
        assert overrides == []
        return
    runs = [word.partition("=")[2] for word in overrides if word.startswith("run=")]
    if runs:
        _of_some_run(Path(runs[0]), lambda run: load_job(primary_config("eval", run, overrides), overrides, EvalConfig))
    else:
        load(overrides, "eval")


def _ablate(given: dict[str, Any], overrides: list[str]) -> None:
    if given["across"]:
        assert overrides and not any("=" in word for word in overrides)
    else:
        make_study(_without_plugins(overrides), config_dir=given["config_dir"])


def _diagnose(given: dict[str, Any], overrides: list[str]) -> None:
    _of_some_run(given["run"], lambda run: load_job(primary_config("eval", run, overrides), overrides, EvalConfig))


def _export(given: dict[str, Any], overrides: list[str]) -> None:
    keys = {word.partition("=")[0] for word in overrides}
    assert "run" in keys and keys <= {"run", "checkpoint", "model.path", *Written.model_fields}


def _play(given: dict[str, Any], overrides: list[str]) -> None:
    assert all(play._is_read(word) for word in overrides)
    load(overrides, "eval")


def _plan(given: dict[str, Any], overrides: list[str]) -> None:
    load_job("plan", overrides, PlanConfig)


def _verl(given: dict[str, Any], overrides: list[str]) -> None:
    out, *rest = overrides
    assert out.startswith("out=")
    assert not list(refused(load_job("train", rest, TrainConfig)))


CHECKS: dict[str, Callable[[dict[str, Any], list[str]], None]] = {
    "train": _train,
    "eval": _eval,
    "ablate": _ablate,
    "diagnose": _diagnose,
    "export": _export,
    "play": _play,
    "plan": _plan,
    "verl": _verl,
}
"""Others take a path or words of their own, which the parser has read."""


def exists(command: str) -> None:
    """The name of a command, maybe with flags (`empg eval --compare`): there is such a command, and it has them."""
    _, name, *words = shlex.split(command)
    group: Any = typer.main.get_command(app)
    parser = group.commands[name]
    if hasattr(parser, "commands"):
        parser = parser.commands[words.pop(0)]
    known = {spelling for parameter in parser.params for spelling in (*parameter.opts, *parameter.secondary_opts)}
    flags = {word.split("=")[0] for word in words if word.startswith("-")} - {"--help"}
    assert flags <= known, f"empg {name} has no {', '.join(flags - known)}"


@cache
def _saved(benchmark: str) -> str:
    return config.as_yaml(load([f"benchmark={benchmark}"]))


def _of_some_run(folder: Path, compose: Callable[[Path], object]) -> None:
    """The run that the reader has is of one of our benchmarks; the settings must fit one at least."""
    folder = Path(re.sub(r"/checkpoints/.*", "", str(folder)))
    refusals = []
    for benchmark in BENCHMARKS:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(_saved(benchmark))
        try:
            compose(folder)
        except ConfigError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]


def _make_what_is_named(overrides: Sequence[str]) -> None:
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key in IN_PLACE and ":" not in value:
            Path(value).expanduser().mkdir(parents=True, exist_ok=True)
        elif key == "trainer.warm_start.file":
            Path(value).touch()


def _without_plugins(overrides: Sequence[str]) -> list[str]:
    return [word for word in overrides if not word.startswith(PLUGINS)]
