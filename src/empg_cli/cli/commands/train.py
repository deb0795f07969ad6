"""`empg train`: a new run, a sweep, or a run that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from empg_cli.cli.flags import HydraFlags
from empg_cli.cli.jobs import train_task
from empg_cli.cli.launch import launch
from empg_cli.config.compose import INVALID
from empg_cli.config.job import load_job
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.own_config import changes, primary_config, used_folders
from empg_cli.runs.run_file import check_readable


def run(overrides: Sequence[str], flags: HydraFlags, resume: Path | None = None) -> None:
    if resume is None:
        for folder in used_folders(overrides):  # before Hydra opens its log in there
            check_readable(folder)
        launch(train_task, TrainConfig, flags.config_name or "train", overrides, flags)
        return
    if flags.multirun:
        raise ConfigError(INVALID, [Problem("--resume", "cannot be combined with --multirun")])
    folder = find_run_folder(resume)
    again = [word for word in overrides if word.split("=")[0].lstrip("+") in ("run_dir", "resume", "hydra.run.dir")]
    if again:
        raise ConfigError(INVALID, [Problem(word, "is already said by --resume") for word in again])
    name = primary_config("train", folder, overrides, run_dir=str(folder), resume=_checkpoint(resume, folder))
    if not flags.only_shows:
        problems = changes(load_job(name, overrides, TrainConfig), folder)
        if problems:
            raise ConfigError(f"{folder} cannot be resumed like this", problems)
    launch(train_task, TrainConfig, name, overrides, flags)


def _checkpoint(given: Path, folder: Path) -> str:
    """`auto`, the newest good checkpoint of the run; or the one that was given."""
    return "auto" if given.resolve() == folder.resolve() else str(given)
