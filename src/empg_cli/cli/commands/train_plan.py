"""`empg train ... --plan`: what the command would train, on which data, and what that costs. Writes no run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from empg_cli.benchmarks import make_benchmark
from empg_cli.cli.commands.plan import duration_text, found_here, tables
from empg_cli.cli.commands.train import refuse_before_work
from empg_cli.cli.flags import HydraFlags
from empg_cli.config import as_yaml
from empg_cli.config.compose import INVALID
from empg_cli.config.job import load_job
from empg_cli.config.place import output_place
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.config.unsaid import with_unsaid
from empg_cli.disk import free_bytes
from empg_cli.files import check_could_be_written
from empg_cli.invocation import command, from_here
from empg_cli.observe.terminal import printable, write_line
from empg_cli.observe.trackers import refuse_missing
from empg_cli.planning.plan import Plan, plan_of
from empg_cli.reports.tables import print_table


def run(overrides: Sequence[str], flags: HydraFlags) -> None:
    """Print configuration, data, model and cost of one job.

    Raises:
        ConfigError, FolderTaken: the command would be refused.
        OSError: there can be no such folder.
        DoesNotFit, ConfigError: likewise, after all is printed.
    """
    for flag, given in (("--multirun", flags.multirun), ("--cfg, --info or --hydra-help", flags.only_shows),
                        ("--config-path or --experimental-rerun", flags.config_path or flags.rerun)):  # fmt: skip
        if given:
            hint = (
                f"give one value of each key; `{command('ablate', '--plan')}` is about many runs"
                if flags.multirun
                else None
            )
            raise ConfigError(
                INVALID, [Problem("--plan", f"cannot be combined with {flag}: it is about one job", hint=hint)]
            )
    name = flags.config_name or "train"
    cfg = load_job(name, overrides, TrainConfig, flags.config_dir)
    words, _ = with_unsaid(overrides, name, flags.config_dir)
    place = output_place(name, words, config_dir=flags.config_dir)
    folder = Path(cfg.run_dir) if place is None or place.is_stamped else place.folder
    if place is not None:
        refuse_before_work(place.config, folder)
    check_could_be_written(folder)
    refuse_missing(cfg.logger.trackers)
    _refuse_missing_packages(cfg)
    plan = _plan(cfg)
    _section("Configuration", as_yaml(cfg).rstrip().splitlines())
    _section("Data", _data(cfg))
    _section("Model", _model(cfg, plan))
    _section("Folder", [f"{from_here(folder)}: nothing was written there"])
    _cost(cfg, plan, folder)
    _refuse_absent_model(cfg)


def _section(title: str, lines: Sequence[str]) -> None:
    for line in (title, *(f"  {line}" for line in lines), ""):
        write_line(sys.stdout, printable(line))


def _data(cfg: TrainConfig) -> list[str]:
    """Makes the benchmark, as a run does: what is wrong with the data is said here."""
    found = make_benchmark(**cfg.benchmark.model_dump()).fingerprint()
    place = f" in {cfg.benchmark.data_dir}" if cfg.benchmark.data_dir else ""
    tasks = ", ".join(f"{split} {count:,}" for split, count in found.get("tasks", {}).items())
    played = "all" if cfg.benchmark.eval_tasks is None else f"the first {cfg.benchmark.eval_tasks:,}"
    return [
        f"{cfg.benchmark.name}: {found['source']} data{place}" + (f" ({tasks})" if tasks else ""),
        f"trains on the split train, evaluates on {played} of {cfg.benchmark.split}",
    ]


def _model(cfg: TrainConfig, plan: Plan | None) -> list[str]:
    match cfg.model.init:
        case "packaged":
            weights = "weights that ship with empg"
        case "scratch":
            weights = "random weights"
        case "pretrained":
            assert cfg.model.path is not None
            where = "a folder" if Path(cfg.model.path).expanduser().is_dir() else _from_hub()
            weights = f"{cfg.model.path}, {where}"
    size = [] if plan is None else [f"{plan.job.shape.parameters / 1e6:,.1f} M parameters, "
                                    f"{plan.job.trained / 1e6:,.1f} M trained"]  # fmt: skip
    return [f"{cfg.model.name}: {weights}", *size]


def _refuse_missing_packages(cfg: TrainConfig) -> None:
    """Those that a run imports before its work."""
    if cfg.model.lora.rank:
        from empg_cli.model.lora import peft

        peft()
    if cfg.trainer.optimizer == "adamw8bit":
        from empg_cli.learner.optim import bitsandbytes

        bitsandbytes()


def _refuse_absent_model(cfg: TrainConfig) -> None:
    """As far as this machine can tell: what the hub has is not asked."""
    path = cfg.model.path
    if cfg.model.init != "pretrained" or path is None or Path(path).expanduser().is_dir() or not _is_offline():
        return
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    found = None
    with contextlib.suppress(HFValidationError):
        found = try_to_load_from_cache(path, "config.json")
    if not isinstance(found, str):
        what = "is no folder here, and is not in the hub's cache (HF_HUB_OFFLINE)"
        hint = "give a Hugging Face model folder, or a hub id with network"
        raise ConfigError(INVALID, [Problem("model.path", what, path, hint)])


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE") == "1"


def _from_hub() -> str:
    return "of the hub's cache (HF_HUB_OFFLINE)" if _is_offline() else "of the hub, or its cache"


def _plan(cfg: TrainConfig) -> Plan | None:
    hardware, flops = found_here(cfg)
    return plan_of(cfg, hardware, cpu_flops=flops)


def _cost(cfg: TrainConfig, plan: Plan | None, folder: Path) -> None:
    if plan is None:
        _section("Cost", [f"not known: nobody here knows the shape of {cfg.model.path}"])
        return
    episodes = cfg.trainer.tasks_per_update * cfg.algo.group_size
    lines = [f"{cfg.trainer.updates:,} updates of {episodes:,} episodes"]
    if (took := plan.duration) is not None:
        total = cfg.trainer.updates * (took.rollout_s + took.learning_s)
        lines[0] += f": about {duration_text(total)}, evaluations and a warm start apart"
    _section("Cost", lines)
    for table in tables(plan, free_bytes(folder)):
        print_table(table, sys.stdout)
        write_line(sys.stdout, "")
    plan.refuse()
