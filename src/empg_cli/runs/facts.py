"""What a run was made of, for run.json: settings, versions, commit, data. Written before the first update."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.config import outside
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.demonstrations import file_digest
from empg_cli.runs.format import FORMAT, KEY, without_new_keys
from empg_cli.runs.provenance import CODE, DEMONSTRATIONS, code_digest
from empg_cli.runs.run_file import read_run_file, update_run_file

if TYPE_CHECKING:
    from empg_cli.config.schema import TrainConfig

PROMPT_DATE = "prompt_date"
"""Key of run.json."""
OUTSIDE = "outside"
"""Key of run.json: the code from outside the package that the run is made by."""
MODEL = "model"
"""Key of run.json: the fingerprint of the initial weights."""
SETTLED = "settled"
"""Key of run.json: the numbers that auto stands for, or that were given, by key."""
MODEL_FROM = "model_from"
"""Key of run.json: whether `model.path` was a `folder` here, or is an id of the `hub`; null without one."""
HARDWARE = "hardware"
"""Key of run.json: the names of the GPUs that the run has computed on, else of the processors."""
DATA = "data"
"""Key of run.json: the fingerprint of the data."""
PACKAGES = (
    "empg-cli",
    "torch",
    "transformers",
    "tokenizers",
    "hydra-core",
    "pydantic",
    "numpy",
    "wandb",
    "peft",
    "bitsandbytes",
)

WATCHING = {"trainer": ("health", "watchdog", "oom"), "dist": ("restarts", "timeout_s")}
"""Settings that change no number, by their section."""


def shaping(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that shape a result, seed apart. Health checks and what is done when memory runs out or a process is
    lost are left out: they watch, and a run that they stop has not finished."""
    shaped = {key: value for key, value in values.items() if key not in ("seed", "run_dir", "resume", "logger")}
    for section, watching in WATCHING.items():
        if isinstance(node := shaped.get(section), Mapping):
            shaped[section] = {key: value for key, value in node.items() if key not in watching}
    return shaped


def config_hash(cfg: TrainConfig, bends: Sequence[tuple[int, int]] = ()) -> str:
    """Digest of everything that shapes the result but the seed: runs that share it differ only by chance.

    A key that came later does not change it while its value is what runs did before: a study that began then goes on.

    Args:
        bends: where the schedule of the learning rate became another one: updates done, and how many it was made for.
    """
    return settings_hash(cfg.model_dump(), bends)


def settings_hash(values: Mapping[str, Any], bends: Sequence[tuple[int, int]] = ()) -> str:
    """`config_hash` of a configuration as plain data."""
    content = without_new_keys(shaping(values)) | ({"bends": list(bends)} if bends else {})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def cell_hash(cfg: TrainConfig, bends: Sequence[tuple[int, int]] = ()) -> str:
    """`config_hash` with the seed: runs that share it are the same experiment."""
    return with_seed(config_hash(cfg, bends), cfg.seed)


def with_seed(config_hash: str, seed: int) -> str:
    """The `cell_hash` of a configuration with this digest."""
    return hashlib.sha256(f"{config_hash} seed {seed}".encode()).hexdigest()[:12]


def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def source_commit() -> str | None:
    """Commit of the checkout that empg runs from, with `+` when it has changes; None outside of a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return f"{head}+" if _git(here, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def prompt_date(run: str | Path | None) -> date:
    """The date that the prompts of a run show, where the chat template has one: that of the day it was made, so that
    the prompts of a run that goes on tomorrow, and of its evaluations, stay the same.

    Args:
        run: folder of a run that exists, or one of its checkpoints; None for a new one, which takes the clock's.
    """
    recorded = read_run_file(find_run_folder(Path(run))).get(PROMPT_DATE) if run else None
    return date.fromisoformat(recorded) if recorded else date.today()


def are_other_data(trained: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    """Two fingerprints have digests, and these differ."""
    before, after = (trained or {}).get("digest"), now.get("digest")
    return before is not None and after is not None and before != after


def demonstrations_digest(cfg: TrainConfig) -> str | None:
    """Of the file that the warm start imitates."""
    file = cfg.trainer.warm_start.file
    return None if file is None else file_digest(Path(file).expanduser())


def model_from(path: str | None) -> str | None:
    return None if path is None else "folder" if Path(path).expanduser().is_dir() else "hub"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its name: a seed repeats its numbers bit for bit on processors with the same instructions alone."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").splitlines()]
    except OSError:
        lines = []
    named = (value.strip() for key, _, value in lines if key.strip() == "model name")
    return next(named, "") or platform.processor() or platform.machine()


def note_hardware(run_dir: Path, name: str) -> None:
    """Of what the updates to come are computed on, beside that of those before."""
    earlier = read_run_file(run_dir).get(HARDWARE, [])
    update_run_file(run_dir, **{HARDWARE: list(dict.fromkeys([*earlier, name]))})


def run_facts(cfg: TrainConfig, data: Mapping[str, Any], bends: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """
    Args:
        data: the benchmark's fingerprint.
        bends: of the schedule, see `config_hash`.
    """
    return {
        KEY: FORMAT,
        "config_hash": config_hash(cfg, bends),
        "seed": cfg.seed,
        "versions": package_versions(),
        CODE: code_digest(),
        "commit": source_commit(),
        "platform": platform.platform(),
        OUTSIDE: outside.facts(cfg.model_dump()),
        DATA: dict(data),
        MODEL_FROM: model_from(cfg.model.path),
        "loss_weighting": cfg.algo.loss.weighting,
        "advantage": cfg.algo.advantage.model_dump(),
        "old_logprobs": cfg.trainer.old_logprobs,
        "context": cfg.rollout.context,
        DEMONSTRATIONS: demonstrations_digest(cfg),
    }
