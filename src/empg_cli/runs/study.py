"""A study on disk: `study.json` names its cells, and each cell is a run folder below it."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.files import write_atomically
from empg_cli.owner import FolderOwned, Owner, owner_of, owning
from empg_cli.runs.config_file import is_run, saved_values
from empg_cli.runs.facts import shaping
from empg_cli.runs.format import lookup, migrated
from empg_cli.runs.run_file import read_run_file

STUDY_FILE = "study.json"
PLACES = ("benchmark.data_dir", "benchmark.cache_dir", "benchmark.retrieval.index_dir")
"""Settings that say where data lies: moved data is the same data if its digest is (`runs/mixture.py`)."""
UPDATES = "trainer.updates"
ELSEWHERE = "played elsewhere"
"""What the job of a cell returns that another process plays, or has just finished."""
PATIENCE_S = 60.0
"""How long a command waits for another one that writes into the study's own folder: that takes a moment."""


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
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variant -> its configuration as far as it shapes results; none in a study of an older empg."""
    mixed: str = "refuse"
    """What is done with cells that are not made of the same: `refuse` or `mark`."""
    arms: Mapping[str, str] = field(default_factory=dict)
    """Variant -> the variant of `ablation.variants` that it is a drawn setting of; empty where nothing is tuned."""
    confirms: Mapping[str, Any] | None = None
    """Of a study that plays winners: what `studies.tuning.winners` found in which study."""

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.variant for cell in self.cells))

    def cell_dir(self, cell: Cell) -> Path:
        return self.folder / cell.folder

    def part(self, variants: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
        """The cells of these variants with these seeds, seed by seed."""
        return [cell for cell in self.cells if cell.variant in variants and cell.seed in seeds]

    def is_done(self, cell: Cell) -> bool:
        """The cell's run has finished with exactly this configuration and seed; data may have been moved since."""
        summary = _read_json(self.cell_dir(cell) / "summary.json")
        if summary.get("exit_code") != 0:
            return False
        return summary.get("cell_hash") == cell.cell_hash or self.other_settings(cell) == []

    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if self.is_done(cell)]

    def pending(self) -> list[Cell]:
        return [cell for cell in self.cells if not self.is_done(cell)]

    def strangers(self) -> list[tuple[Cell, list[str]]]:
        """Cells whose folder holds a run of another configuration, with the keys that differ, as far as they are known.
        Going on would mix two studies.

        Raises:
            FromTheFuture: a newer empg has made one of them.
        """
        found = []
        for cell in self.cells:
            facts = self.cell_facts(cell)
            if not facts or (facts.get("config_hash"), facts.get("seed")) == (cell.config_hash, cell.seed):
                continue
            keys = self.other_settings(cell)
            if keys is None or keys:
                found.append((cell, keys or []))
        return found

    def cell_facts(self, cell: Cell) -> dict[str, Any]:
        """Its run.json; empty where there is none.

        Raises:
            DataError: it is damaged: nobody can tell whether the cell is like the others.
            FromTheFuture: a newer empg has made it.
        """
        return read_run_file(self.cell_dir(cell))

    def other_settings(self, cell: Cell) -> list[str] | None:
        """The settings in which the run in the cell's folder is not this cell; None where nobody can tell."""
        folder, settings = self.cell_dir(cell), self.settings.get(cell.variant)
        if settings is None or not is_run(folder):
            return None
        values = saved_values(folder)
        keys = [key for key, _, _ in differences(shaping(values), settings)]
        if any(change.get("key") == UPDATES for change in self.cell_facts(cell).get("changes", [])):
            keys.append(f"{UPDATES} (it became another on the way)")  # so did the schedule of the learning rate
        return keys if values.get("seed") == cell.seed else [*keys, "seed"]


class StudyError(UserError):
    """A folder is not a study, or not this one."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, value before and value now of each setting that is not the same; where data lies does not count."""
    for name in dict.fromkeys([*before, *now]):
        key, old, new = f"{above}{name}", before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{key}.")
        elif old != new and key not in PLACES:
            yield key, old, new


def without_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that says of its data whether it has a place, and not which."""
    found = copy.deepcopy(dict(values))
    for key in PLACES:
        above, _, name = key.rpartition(".")
        node = lookup(found, above)
        if isinstance(node, dict) and node.get(name) is not None:
            node[name] = "given"
    return found


def write_study(study: Study) -> None:
    study.folder.mkdir(parents=True, exist_ok=True)
    content = asdict(study) | {"folder": None}  # a study may be moved
    write_atomically(study.folder / STUDY_FILE, json.dumps(content, indent=1) + "\n")


def is_study(folder: Path) -> bool:
    return (folder / STUDY_FILE).is_file()


def read_study(folder: Path) -> Study:
    """
    Raises:
        StudyError: there is no study in the folder, or its file is broken.
    """
    from pydantic import TypeAdapter, ValidationError

    content = _read_json(folder / STUDY_FILE)
    settings = content.get("settings", {})
    try:
        study = TypeAdapter(Study).validate_python({**content, "folder": folder})
        return replace(study, settings={name: shaping(migrated(values)) for name, values in settings.items()})
    except ValidationError as error:
        if not content:
            what = "is not there, or not readable: give the folder that `empg ablate` has printed"
        else:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            what = f"is nothing that `empg ablate` has written ({key}: {error.errors()[0]['msg']})"
        hint = "a broken one may be deleted: the command that made it finds its cells again"
        raise StudyError(f"{folder / STUDY_FILE} {what}; {hint}") from None


@contextlib.contextmanager
def writing_into(study: Path) -> Iterator[None]:
    """While the block runs, no other command changes `study.json` or the tables; cells are played meanwhile.

    Raises:
        FolderOwned: another process has not finished with them after `PATIENCE_S`.
    """
    end = time.monotonic() + PATIENCE_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(owning(study, "writing the study"))
                break
            except FolderOwned:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield


def player_of(cell_dir: Path) -> Owner | None:
    """The process that plays a cell at this moment; None where nobody does."""
    if not cell_dir.is_dir():
        return None
    try:
        with owning(cell_dir, "looking"):
            return None
    except FolderOwned:
        return owner_of(cell_dir)


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
