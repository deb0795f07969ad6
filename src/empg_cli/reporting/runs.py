"""Run folders read back: configuration, metrics, evaluations and trajectories. Needs neither torch nor Hydra."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from empg_cli.errors import UserError
from empg_cli.tracking.files import read_run_file
from empg_cli.tracking.rows import Row, read_rows


class NotARun(UserError):  # noqa: N818 (a sentence for the user)
    """A path that reports cannot be made from."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    folder: Path
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    """run.json"""
    rows: Mapping[int, Row]

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def title(self) -> str:
        return f"{self.config['algo']['name']} on {self.config['benchmark']['name']}, seed {self.seed}"

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
        if (self.folder.parent / "study.json").is_file() and self.folder.name.endswith(suffix):
            return self.folder.name.removesuffix(suffix)
        return f"{self.config['algo']['name']} ({self.config['model']['name']})"

    def last(self, metric: str) -> tuple[int, float] | None:
        """Update and value of the last row that has the metric."""
        for update in sorted(self.rows, reverse=True):
            value = self.rows[update].get(metric)
            if value is not None:
                return update, value
        return None

    def trajectories(self) -> list[dict[str, Any]]:
        """Those of the newest update that has any, evaluation first."""
        files = sorted((self.folder / "trajectories").glob("update-*.jsonl"))
        if not files:
            return []
        newest = files[-1].name.split("-")[1]
        return [record for file in files if file.name.split("-")[1] == newest for record in _json_lines(file)]


def open_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """Each path is a run, or a folder of runs (a study, a sweep); every run once, in order.

    Raises:
        NotARun: a path holds none, or one that has logged nothing.
    """
    folders = list(dict.fromkeys(folder for path in paths for folder in _run_folders(path)))
    return [_open(folder) for folder in folders]


def _run_folders(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        raise NotARun(f"{path}: no such folder; give a run folder, a sweep or a study")
    if _is_run(path):
        yield path
        return
    inside = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and _is_run(folder)]
    if not inside:
        raise NotARun(f"{path} is no run and holds none: a run has config.yaml and metrics.jsonl in it")
    yield from inside


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()


def _open(folder: Path) -> RunFolder:
    rows = read_rows(folder / "metrics.jsonl")
    if not rows:
        raise NotARun(f"{folder} has not logged anything yet")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if not isinstance(config, dict) or "algo" not in config:
        raise NotARun(f"{folder}/config.yaml is not the configuration of a training run")
    return RunFolder(folder, config, read_run_file(folder), rows)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file)
