"""`empg train`: a new run, a sweep, or a run that goes on."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from empg_cli.cli.flags import HydraFlags
from empg_cli.cli.jobs import refused_sweep, resume_of, train_task
from empg_cli.cli.launch import launch
from empg_cli.cli.ranks.cluster import is_not_first, place_of
from empg_cli.cli.ranks.processes import on_this_node
from empg_cli.config.compose import INVALID
from empg_cli.config.dist import NodeDist
from empg_cli.config.job import load_job
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.runs.checkpoint import all_checkpoints, updates_of
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.demonstrations import read_demonstrations, refuse_if_compact
from empg_cli.runs.folder import RESTART, refuse_taken
from empg_cli.runs.own_config import primary_config, used_folders, words_for
from empg_cli.runs.run_file import check_readable
from empg_cli.runs.same_run import settings_that_change

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(overrides: Sequence[str], flags: HydraFlags, resume: Path | None = None, *, restart: bool = False) -> None:
    """
    Args:
        resume: a run folder, or one of its checkpoints, to go on from.
        restart: begin anew in that folder.
    """
    if resume is None:
        if restart:
            raise ConfigError(INVALID, [Problem("--restart", "is of --resume", hint="add --resume RUN")])
        name = flags.config_name or "train"
        follow_if_told(name, overrides, flags)
        for folder in used_folders(overrides):  # before Hydra opens its log in there
            check_readable(folder)
        if flags.multirun:
            check_demonstrations(overrides)
            if "cluster" in words_for("dist", overrides):
                raise refused_sweep()
        launch(train_task, TrainConfig, name, overrides, flags, doing="training", admit=refuse_before_work)
        return
    if flags.multirun:
        raise ConfigError(INVALID, [Problem("--resume", "cannot be combined with --multirun")])
    folder = find_run_folder(resume)
    again = [word for word in overrides if word.split("=")[0].lstrip("+") in ("run_dir", "resume", "hydra.run.dir")]
    if again:
        raise ConfigError(INVALID, [Problem(word, "is already said by --resume") for word in again])
    is_whole_run = resume.resolve() == folder.resolve()
    if restart and not is_whole_run:
        raise ConfigError(INVALID, [Problem("--restart", "begins anew, so --resume must name the run", str(resume))])
    start = RESTART if restart else "auto" if is_whole_run else str(resume)
    name = primary_config("train", folder, overrides, run_dir=str(folder), resume=start)
    follow_if_told(name, overrides, flags)
    if not flags.only_shows:
        newest = [] if restart else all_checkpoints(folder)[-1:] if is_whole_run else [resume]
        done = (updates_of(newest[0]) or 0) if newest else 0
        settings_that_change(load_job(name, overrides, TrainConfig, flags.config_dir), folder, done)
    launch(train_task, TrainConfig, name, overrides, flags, doing="training", admit=_admit_place)


def follow_if_told(name: str, overrides: Sequence[str], flags: HydraFlags) -> None:
    """Where the command is dist=cluster and this process is not the first of several, it does a rank's part and ends.

    Raises:
        SystemExit: at that end.
        ConfigError: the command is refused.
    """
    if flags.only_shows or flags.multirun or not is_not_first(os.environ):
        return
    if flags.config_path is not None or flags.rerun is not None:
        return  # configurations of no files of ours: `_train` says what cannot be
    if (cfg := load_job(name, overrides, TrainConfig, flags.config_dir)).dist.launch == "cluster":
        from empg_cli.cli.ranks.cluster_ranks import follow

        follow(cfg)


def check_demonstrations(overrides: Sequence[str]) -> None:
    """Files that several runs are to begin with, before any of them does."""
    for file in words_for("trainer.warm_start.file", overrides):
        if (path := Path(file).expanduser()).is_file():  # else the configuration is refused
            read_demonstrations(path)


def refuse_before_work(cfg: DictConfig, folder: Path) -> None:
    """What is refused before a folder is made and torch loaded."""
    _admit_place(cfg, folder)
    if resume_of(cfg) is None:
        refuse_taken(folder)
    if (file := cfg.trainer.warm_start.file) is not None:
        refuse_if_compact(read_demonstrations(Path(file).expanduser()), cfg.model.prompt)


def _admit_place(cfg: DictConfig, folder: Path) -> None:
    from omegaconf import OmegaConf

    if cfg.dist.launch == "cluster":
        place_of(os.environ)
    if cfg.dist.launch == "node":
        on_this_node(NodeDist.model_validate(OmegaConf.to_container(cfg.dist, resolve=True)), cfg.trainer.device)
    if cfg.rollout.engine == "vllm" and cfg.rollout.vllm.urls is None:
        _refuse_without_vllm(cfg.rollout.vllm.python)


def _refuse_without_vllm(python: str | None) -> None:
    hint = "install vLLM there, name another Python, or give rollout.vllm.urls of servers that run"
    if python is None and importlib.util.find_spec("vllm") is None:
        raise ConfigError(INVALID, [Problem("rollout.vllm.python", f"{sys.executable} has no vLLM", hint=hint)])
    if python is not None and shutil.which(python) is None:
        raise ConfigError(INVALID, [Problem("rollout.vllm.python", "is no program", python, hint)])
