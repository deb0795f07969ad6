"""Environment variables that empg and its libraries read in a run: a wrong one is a problem under its own name, before
a library trips over it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from empg_cli.config.problems import INVALID, ConfigError, Problem

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
FOLDERS = ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "WANDB_DIR", "WANDB_CACHE_DIR")
WANDB_MODES = ("online", "offline", "disabled", "dryrun")
FREE = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SILENT", "WANDB_ENTITY", "WANDB_SERVICE", "WANDB_DISABLED", *FOLDERS)
"""W&B takes any text for them, or they are checked here: no reason to import it, which takes a second."""
THERE = "in the environment"
TRUE = ("1", "true", "yes", "y", "on")


def check_environment(values: Mapping[str, Any]) -> list[Problem]:
    """
    Args:
        values: a composed configuration, valid or not; what it does not read is not judged.
    """
    return [*_of_every_run(), *_of_wandb(values)]


def wandb_is_off() -> str | None:
    """The variable that turns W&B off where the settings leave its mode to the environment, as `NAME=value`; None =
    there is none. `disabled` is W&B's own mode; WANDB_DISABLED is what other trainers read."""
    if os.environ.get("WANDB_DISABLED", "").strip().lower() in TRUE:
        return f"WANDB_DISABLED={os.environ['WANDB_DISABLED']}"
    return "WANDB_MODE=disabled" if os.environ.get("WANDB_MODE") == "disabled" else None


def refuse_one_id_for_all(values: Mapping[str, str] = os.environ) -> None:
    """Of a sweep, whose jobs are runs of their own.

    Raises:
        ConfigError: the environment names one W&B run for all of them.
    """
    if values.get("WANDB_RUN_ID"):
        what = f"names one run, and each job here is a run of its own, {THERE}"
        raise ConfigError(INVALID, [Problem("WANDB_RUN_ID", what, values["WANDB_RUN_ID"], "unset WANDB_RUN_ID")])


def _of_every_run() -> Iterator[Problem]:
    for name in COUNTS:
        text = os.environ.get(name, "").strip()
        if text and not re.fullmatch(r"0*[1-9]\d{0,5}(,0*[1-9]\d{0,5})*", text):
            yield Problem(name, f"must be a whole number above 0, {THERE}", text, f"unset {name}, or give a number")
    for name in FOLDERS:
        text = os.environ.get(name, "")
        if text and Path(text).is_file():
            yield Problem(name, f"must be a folder, {THERE}", text, f"unset {name}, or give a folder")
    address = os.environ.get("HF_ENDPOINT", "")
    if address and not (address.startswith(("http://", "https://")) and urlsplit(address).netloc):
        yield Problem("HF_ENDPOINT", f"must begin with http:// or https://, {THERE}", hint="unset HF_ENDPOINT")


def _of_wandb(values: Mapping[str, Any]) -> Iterator[Problem]:
    logger = values.get("logger")
    node = logger.get("wandb") if isinstance(logger, Mapping) else None
    trackers = logger.get("trackers") if isinstance(logger, Mapping) else None
    is_tracker = isinstance(trackers, list) and "wandb" in trackers
    asked = node.get("mode") if isinstance(node, Mapping) and is_tracker else None
    if asked not in ("auto", "online", "offline") or (asked == "auto" and wandb_is_off()):
        return
    mode = os.environ.get("WANDB_MODE", "") if asked == "auto" else ""
    if mode and mode not in WANDB_MODES:
        hint = "unset WANDB_MODE, or choose logger.wandb.mode"
        yield Problem("WANDB_MODE", f"must be {', '.join(WANDB_MODES[:-1])} or {WANDB_MODES[-1]}, {THERE}", mode, hint)
    for name in sorted(os.environ):
        if name.startswith("WANDB_") and name not in FREE and (fault := _fault_of_wandb(name)):
            yield Problem(name, f"is refused by W&B: {fault}", None, f"unset {name}, or logger.wandb.mode=disabled")


def _fault_of_wandb(name: str) -> str | None:
    import wandb

    try:
        wandb.Settings().update_from_env_vars({name: os.environ[name]})
    except ValueError as error:  # pydantic's
        return str(error).splitlines()[2].partition(" [type=")[0].strip()
    except wandb.errors.UsageError as error:
        return str(error).partition("\n")[0]
    return None
