"""Run folders read back: configuration, metrics, evaluations and trajectories. Needs neither torch nor Hydra."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.runs.checkpoint import all_checkpoints, updates_of
from empg_cli.runs.config_file import is_run, saved_run
from empg_cli.runs.histograms import FILE as HISTOGRAMS
from empg_cli.runs.histograms import Histogram, read_histograms
from empg_cli.runs.history import first_update, history_faults
from empg_cli.runs.rows import Row, read_rows
from empg_cli.runs.run_file import RUN_FILE, check_readable, read_run_file
from empg_cli.runs.study import STUDY_FILE, read_study
from empg_cli.runs.trajectories import read_trajectories, trajectory_files

log = logging.getLogger(__name__)


class NotARun(UserError):  # noqa: N818 (a sentence for the user)
    """A path that reports cannot be made from."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    folder: Path
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    """run.json"""
    rows: Mapping[int, Row]
    damaged: frozenset[str] = frozenset()
    """Files that are not as the run wrote them, by their path in the folder."""

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def title(self) -> str:
        return f"{self.config['algo']['name']} on {self.config['benchmark']['name']}, seed {self.seed}"

    @property
    def planned_updates(self) -> int:
        return int(self.config["trainer"]["updates"])

    @property
    def updates(self) -> int:
        """The newest update that was logged."""
        return max(self.rows)

    @property
    def is_finished(self) -> bool:
        return self.updates >= self.planned_updates

    @property
    def data_source(self) -> str:
        return str(self.facts.get("data", {}).get("source", "unknown"))

    @property
    def group(self) -> str:
        """Runs that share it differ only in their seed."""
        return str(self.facts.get("config_hash") or self.folder)

    @property
    def label(self) -> str:
        """Of the group: a cell's variant, else algorithm and model."""
        suffix = f"-s{self.seed}"
        if (self.folder.parent / STUDY_FILE).is_file() and self.folder.name.endswith(suffix):
            return self.folder.name.removesuffix(suffix)
        return f"{self.config['algo']['name']} ({self.config['model']['name']})"

    def last(self, metric: str) -> tuple[int, float] | None:
        """Update and value of the last row that has the metric."""
        for update in sorted(self.rows, reverse=True):
            value = self.rows[update].get(metric)
            if value is not None:
                return update, value
        return None

    def histograms(self, metric: str) -> dict[int, Histogram]:
        """By update (`read_histograms`); none of a file that is damaged."""
        return {} if HISTOGRAMS in self.damaged else read_histograms(self.folder, metric)

    def trajectories(self) -> list[dict[str, Any]]:
        """Those of the newest update that has any, evaluation first."""
        files = trajectory_files(self.folder)
        newest = [file for update, file in files if update == files[-1][0]]
        sound = [file for file in newest if file.relative_to(self.folder).as_posix() not in self.damaged]
        return [record for file in sound for record in read_trajectories(file)]


def open_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """Each path is a run, or a folder of runs (a study, a sweep); every run once, in order.

    Of a folder of runs those that have not logged anything yet are left out: `unstarted` names them.

    Raises:
        NotARun: a path holds no run, or none that has logged anything.
        FromTheFuture: a newer empg has made one of them.
    """
    return [_open(folder) for folder in each_once(folder for path in paths for folder in _run_folders(path))]


def each_once(folders: Iterable[Path]) -> list[Path]:
    """In order, under the name that came first: links and `.` lead to the same folder."""
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    return list(once.values())


def unstarted(paths: Sequence[Path]) -> list[Path]:
    """The runs inside the folders given that have not logged anything yet."""
    return [folder for path in paths if not is_run(path) for folder in _inside(path) if not _has_logged(folder)]


def evaluation_trajectories(folder: Path) -> list[dict[str, Any]] | None:
    """Those that `empg eval` has kept in its folder; None when the folder is none of its."""
    if not (folder / "evaluation.json").is_file():
        return None
    check_readable(folder)
    return [record for _, file in trajectory_files(folder) for record in read_trajectories(file)]


def _run_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise NotARun(f"{path}: no such folder; give a run folder, a sweep or a study")
    inside = [path] if is_run(path) else _inside(path)
    if not inside:
        raise NotARun(f"{path} is no run and holds none: a run has config.yaml and metrics.jsonl in it")
    for folder in inside:
        check_readable(folder)
    started = [folder for folder in inside if _has_logged(folder)]
    if not started:
        raise NotARun(_nothing_logged(inside))
    return started


def _nothing_logged(folders: Sequence[Path]) -> str:
    if all_checkpoints(folders[0]):
        return f"{folders[0]} has checkpoints and no rows: put its metrics.jsonl back from a copy"
    return f"{folders[0]} has not logged anything yet" + (", nor any run beside it" if folders[1:] else "")


def _inside(path: Path) -> list[Path]:
    """In a study's own order, else by name with numbers by value: s2 before s10."""
    # Hydra keeps a config.yaml of its own in the .hydra of every run.
    folders = [folder for folder in path.iterdir() if is_run(folder) and not folder.name.startswith(".")]
    places = {name: place for place, name in enumerate(_study_order(path))}
    return sorted(folders, key=lambda folder: (places.get(folder.name, len(places)), _by_value(folder.name)))


def _study_order(path: Path) -> list[str]:
    """Names of the runs of a study: its variants in order, the base first, each with its seeds."""
    if not (path / STUDY_FILE).is_file():
        return []
    study = read_study(path)
    return [cell.folder for variant in study.variants for cell in study.cells if cell.variant == variant]


def _by_value(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _has_logged(folder: Path) -> bool:
    return bool(read_rows(folder / "metrics.jsonl"))


def _open(folder: Path) -> RunFolder:
    rows = read_rows(folder / "metrics.jsonl")
    config, facts = saved_run(folder), read_run_file(folder)
    if not facts:
        log.warning("%s has no %s: what the run was made of is not known", folder, RUN_FILE)
    return RunFolder(folder, config, facts, rows, warn_of_faults(folder))


def warn_of_faults(folder: Path) -> frozenset[str]:
    """Say what of a run's record is not as the run wrote it, by the seal of its newest checkpoint.

    Returns:
        The files, by their path in the folder.
    """
    checkpoints = all_checkpoints(folder)
    if not checkpoints:
        return frozenset()
    done, first = updates_of(checkpoints[-1]) or 0, first_update(read_run_file(folder))
    faults = history_faults(folder, checkpoints[-1], first=first, done=done)
    for fault in faults:
        log.warning("%s: %s", folder, fault)
    return frozenset(fault.split()[0].removesuffix(":") for fault in faults)
