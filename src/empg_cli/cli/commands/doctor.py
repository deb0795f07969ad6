"""`empg doctor`: what this machine and installation can do, and the command for what is missing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from empg_cli import __version__
from empg_cli.config.environment import WANDB_MODES, check_environment, wandb_is_off
from empg_cli.config.location import conf_dir, groups
from empg_cli.config.targets import BENCHMARKS, SINKS
from empg_cli.extras import CORE, EXTRAS, gpu_torch_command, install_command, pip_install
from empg_cli.invocation import command, script
from empg_cli.observe.terminal import write_line

FREE_DISK_WARNING_GB = 5

OFFICIAL_DATA = {
    "alfworld": (
        "ALFWORLD_DATA",
        "generated games are played",
        f"official games: {command('data', 'fetch', 'alfworld', 'data_dir=DIR')}",
    ),
    "webshop": (
        "WEBSHOP_DATA",
        "a generated shop is played",
        f"official products: {command('data', 'fetch', 'webshop', 'data_dir=DIR')} says what to get where",
    ),
}
"""Per benchmark: the environment variable, what is played without it, how to get the data."""


class Status(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Works without it; the advice says how to get it."""
    BROKEN = "broken"
    """empg cannot train on this machine until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    area: str
    name: str
    status: Status
    value: str
    advice: str = ""


def run(*, as_json: bool) -> bool:
    """Print everything found; True when the core works."""
    findings = [finding for look in LOOKS for finding in look()]
    works = all(finding.status is not Status.BROKEN for finding in findings)
    if as_json:
        print(json.dumps({"works": works, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        _print(findings, works)
    return works


def installation() -> Iterator[Finding]:
    yield Finding("empg", "version", Status.OK, __version__)
    yield Finding("empg", "configuration", Status.OK, str(conf_dir()))
    yield Finding("empg", "python", Status.OK, f"{platform.python_version()} ({sys.executable})")
    missing = [name for name in CORE if _version(name) is None]
    if missing:
        advice = pip_install(*missing)
        yield Finding("empg", "packages", Status.BROKEN, f"missing: {', '.join(missing)}", advice)
    installed = "  ".join(f"{name} {_version(name)}" for name in CORE if name not in missing)
    yield Finding("empg", "packages", Status.OK, installed)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> Iterator[Finding]:
    yield Finding("machine", "system", Status.OK, platform.platform())
    yield Finding("machine", "cpu", Status.OK, f"{usable_cores()} cores usable")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        yield Finding("machine", "memory", Status.OK, f"{gib:.0f} GiB")
    here = Path.cwd()
    free_gb = shutil.disk_usage(here).free / 1e9
    is_low = free_gb < FREE_DISK_WARNING_GB
    advice = "a checkpoint of a 7B model takes 15 GB and more; set run_dir to another disk" if is_low else ""
    yield Finding("machine", "disk", Status.NOTE if is_low else Status.OK, f"{free_gb:.0f} GB free in {here}", advice)
    if not os.access(here, os.W_OK):
        yield Finding("machine", "run folder", Status.NOTE, f"{here} is not writable", "set run_dir, or go elsewhere")


def compute() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("compute", "torch", Status.BROKEN, f"cannot be imported: {error}", "see https://pytorch.org")
        return
    yield Finding("compute", "torch", Status.OK, torch.__version__)
    yield threads()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu: Any = torch.cuda.get_device_properties(index)
            value = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            yield Finding("compute", f"cuda:{index}", Status.OK, value)
    elif torch.version.cuda is None:
        advice = f"with an NVIDIA GPU: {gpu_torch_command()}"
        yield Finding("compute", "gpu", Status.NOTE, "this torch is built for CPUs", advice)
    else:
        value = f"torch is built for CUDA {torch.version.cuda}, but no GPU can be used"
        yield Finding("compute", "gpu", Status.NOTE, value, "look at nvidia-smi and CUDA_VISIBLE_DEVICES")


def threads() -> Finding:
    cores = usable_cores()
    if cores == 1:
        return Finding("compute", "threads", Status.OK, "one core: trainer.threads=1, the default, is right")
    from empg_cli.cli.threads import measure_threads

    speed = measure_threads(cores)
    value = (
        f"matrix products of a small step: {speed.one_s * 1e3:.1f} ms on 1 thread, {speed.all_s * 1e3:.1f} ms on "
        f"{cores}; trainer.threads={speed.advised} is right here now"
    )
    if speed.advised == 1:
        return Finding("compute", "threads", Status.OK, f"{value} (the default)")
    advice = f"for a single run: trainer.threads={speed.advised}; a sweep gains more from as many jobs at once"
    return Finding("compute", "threads", Status.NOTE, value, advice)


def extras() -> Iterator[Finding]:
    for name, extra in EXTRAS.items():
        missing = [package for package in extra.packages if _version(package) is None]
        if missing:
            yield Finding("extras", name, Status.NOTE, f"not installed: {extra.brings}", install_command(name))
        else:
            installed = "  ".join(f"{package} {_version(package)}" for package in extra.packages)
            yield Finding("extras", name, Status.OK, f"{extra.brings} ({installed})")


def data() -> Iterator[Finding]:
    from empg_cli.benchmarks import make_benchmark
    from empg_cli.benchmarks.base import DataError
    from empg_cli.config import load
    from empg_cli.config.problems import ConfigError

    for name, (variable, generated, advice) in OFFICIAL_DATA.items():
        path = os.environ.get(variable)
        if path is None:
            yield Finding("data", name, Status.NOTE, f"{variable} is not set: {generated}", advice)
            continue
        try:
            found = make_benchmark(**load([f"benchmark={name}"], "eval").benchmark.model_dump()).fingerprint()
        except (ConfigError, DataError) as error:
            yield Finding("data", name, Status.NOTE, f"{variable}={path}: {' '.join(str(error).split())}", advice)
            continue
        tasks = ", ".join(f"{split} {count}" for split, count in found["tasks"].items())
        yield Finding("data", name, Status.OK, f"{found['source']} tasks in {path}: {tasks}")


def models() -> Iterator[Finding]:
    from importlib.resources import files

    assets = files("empg_cli") / "assets"
    for benchmark in groups()["benchmark"]:
        if benchmark == "custom":
            continue
        if (assets / f"tiny-{benchmark}" / "config.json").is_file():
            yield Finding("models", f"tiny on {benchmark}", Status.OK, "ships with empg")
        else:
            advice = "use model=tiny-scratch with trainer.warm_start.steps=N"
            yield Finding("models", f"tiny on {benchmark}", Status.NOTE, "does not ship with this empg", advice)


def outside() -> Iterator[Finding]:
    """What installed packages bring; none of it is imported."""
    for group, what in ((BENCHMARKS, "benchmark"), (SINKS, "sink")):
        for point in sorted(entry_points(group=group), key=lambda point: point.name):
            package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
            if what == "benchmark" and point.name in groups()["benchmark"]:
                advice = f"choose it by benchmark.target={point.value}, or ask its authors for another name"
                yield Finding("outside", point.name, Status.NOTE, f"{what} of {package}, hidden by one of ours", advice)
            else:
                yield Finding("outside", point.name, Status.OK, f"{what} of {package}")


def environment() -> Iterator[Finding]:
    """Variables with which a training of ours, logged to W&B as it is by default, would not start."""
    as_by_default = {"logger": {"trackers": ["wandb"], "wandb": {"mode": "auto"}}}
    for wrong in check_environment(as_by_default):
        shown = wrong.what if wrong.got is None else f"{wrong.what} (got {wrong.got})"
        yield Finding("environment", wrong.key, Status.BROKEN, shown, wrong.hint or "")


def wandb() -> Iterator[Finding]:
    if _version("wandb") is None or os.environ.get("WANDB_MODE", "") not in ("", *WANDB_MODES):
        return
    if off := wandb_is_off():
        advice = f"to log to W&B: unset {off.partition('=')[0]}, or set logger.wandb.mode"
        yield Finding("wandb", "mode", Status.NOTE, f"{off} means disabled here", advice)
        return
    from empg_cli.observe.wandb_sink import login_free_mode

    mode = login_free_mode("auto")
    asked = f"WANDB_MODE={os.environ['WANDB_MODE']}" if os.environ.get("WANDB_MODE") else "mode auto"
    advice = "" if mode == "online" else f"to log online: {script('wandb')} login, or set WANDB_API_KEY"
    yield Finding("wandb", "mode", Status.OK if mode == "online" else Status.NOTE, f"{asked} means {mode} here", advice)


Look = Callable[[], Iterator[Finding]]
LOOKS: tuple[Look, ...] = (installation, machine, environment, compute, extras, data, models, outside, wandb)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(findings: list[Finding], works: bool) -> None:
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            write_line(sys.stdout, area)
        write_line(sys.stdout, f"  {finding.status:<6}  {finding.name:<16}  {finding.value}")
        if finding.advice:
            write_line(sys.stdout, f"{'':26}  -> {finding.advice}")
    write_line(sys.stdout, "empg works here" if works else "empg cannot train here yet: mend what is marked broken")
