"""A study on disk: `study.json` names its cells, and each cell is a run folder below it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from empg_cli.errors import UserError
from empg_cli.files import write_atomically
from empg_cli.runs.format import refuse_the_future
from empg_cli.runs.run_file import RUN_FILE
from empg_cli.runs.shapes import OPEN, read_json

STUDY_FILE = "study.json"


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant with one seed."""

    variant: str
    seed: int
    overrides: tuple[str, ...]
    config_hash: str
    """Digest of the variant's configuration without the seed."""
    cell_hash: str
    """Digest with the seed: equal digests, equal runs."""

    @property
    def folder(self) -> str:
        return f"{self.variant}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class Study:
    folder: Path
    name: str
    metric: str
    base: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    facts: Mapping[str, Mapping[str, Any]]
    """Variant -> what every table must state: loss weighting, group statistics, updates, model, benchmark."""
    costs: Mapping[str, str]
    """Variant -> digest of the settings that an update's duration depends on."""

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.variant for cell in self.cells))

    def cell_dir(self, cell: Cell) -> Path:
        return self.folder / cell.folder

    def is_done(self, cell: Cell) -> bool:
        """The cell's run has finished with exactly this configuration and seed."""
        summary = _read_json(self.cell_dir(cell) / "summary.json")
        return summary.get("exit_code") == 0 and summary.get("cell_hash") == cell.cell_hash

    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if self.is_done(cell)]

    def pending(self) -> list[Cell]:
        return [cell for cell in self.cells if not self.is_done(cell)]

    def strangers(self) -> list[Cell]:
        """Cells whose folder holds a run of another configuration: going on would mix two studies.

        Raises:
            FromTheFuture: a newer empg has made one of them.
        """
        found = []
        for cell in self.cells:
            facts = _read_json(self.cell_dir(cell) / RUN_FILE)
            refuse_the_future(self.cell_dir(cell), facts)
            if facts and (facts.get("config_hash"), facts.get("seed")) != (cell.config_hash, cell.seed):
                found.append(cell)
        return found


class _File(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    name: str
    metric: str
    base: str
    seeds: list[int]
    cells: list[Cell]
    facts: dict[str, dict[str, Any]]
    costs: dict[str, str]


class StudyError(UserError):
    """A folder is not a study, or not this one."""


def write_study(study: Study) -> None:
    study.folder.mkdir(parents=True, exist_ok=True)
    content = asdict(study) | {"folder": None}  # a study may be moved
    write_atomically(study.folder / STUDY_FILE, json.dumps(content, indent=1) + "\n")


def read_study(folder: Path) -> Study:
    if not (folder / STUDY_FILE).is_file():
        raise StudyError(f"{folder} holds no readable {STUDY_FILE}: give the folder that `empg ablate` has printed")
    content = read_json(folder / STUDY_FILE, _File, mend="the command that made the study writes it anew")
    return Study(
        folder=folder,
        name=content["name"],
        metric=content["metric"],
        base=content["base"],
        seeds=tuple(content["seeds"]),
        cells=tuple(replace(cell, overrides=tuple(cell.overrides)) for cell in content["cells"]),
        facts=content["facts"],
        costs=content["costs"],
    )


def job_overrides(study: Study, cell: Cell, command_line: Sequence[str]) -> list[str]:
    """What a launcher is given for a cell. `resume=auto` goes on with a run that was stopped or killed."""
    own = [f"seed={cell.seed}", "resume=auto", f"hydra.sweep.subdir={cell.folder}"]
    return [*command_line, *cell.overrides, *own]


def _read_json(path: Path) -> dict[str, Any]:
    """Empty when there is no such file, or none that can be read (a crash in the middle of a first write)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
