"""Cells that are not made of the same: found, told, refused before more are played.

A study whose code or data changed on the way measures the change too, wherever the variants of a seed are not all on
one side of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.invocation import from_here
from empg_cli.runs.provenance import Made, Part, parts
from empg_cli.runs.study import Cell, Study, is_study, read_study

WAYS_OUT = (
    "go on with what made the others, give another run_dir, or delete the cells that are to be played anew; "
    "with ablation.mixed=mark they stay together, and every table says so"
)


class MixedStudy(UserError):  # noqa: N818 (a sentence for the user)
    """One table over unlike cells was asked for."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """One part of the runs that is not the same in all of them."""

    part: str
    """code, packages, code from outside, data, demonstrations or weights."""
    kinds: Mapping[str, tuple[str, ...]]
    """What it was -> the cells, by their folders."""

    def __str__(self) -> str:
        return f"{self.part}: " + "; ".join(f"{told} made {_listed(cells)}" for told, cells in self.kinds.items())

    def separates(self, one: str, other: str) -> bool:
        """Both cells are among these, on two sides."""
        sides = {told for told, cells in self.kinds.items() if one in cells or other in cells}
        return len(sides) > 1


def mixtures(study: Study, cells: Iterable[Cell]) -> tuple[Mixture, ...]:
    """The parts in which these cells are not the same."""
    return _mixtures({cell.folder: _parts(study, cell, study.cell_facts(cell)) for cell in cells})


def refuse_unlike(run_dir: Path, facts: Mapping[str, Any]) -> None:
    """Where a run is a cell of a study, compare what it is about to be made of with the cells that have begun, itself
    among them; anything else is let pass.

    Args:
        facts: of run.json, as they are going to be; the others are not looked at.

    Raises:
        MixedStudy: the study does not take unlike cells.
    """
    folder = run_dir.absolute().parent
    if is_study(folder):
        study = read_study(folder)
        for cell in study.cells:
            if cell.folder == run_dir.name:
                refuse_cell(study, cell, facts)


def refuse_cell(study: Study, cell: Cell, facts: Mapping[str, Any]) -> None:
    """The same for a cell."""
    if study.mixed == "mark":
        return
    new = f"{cell.folder} (now)"
    made = {new: _parts(study, cell, facts)}
    begun = [other for other in study.cells if _has_rows(study.cell_dir(other))]
    made |= {other.folder: _parts(study, other, study.cell_facts(other)) for other in begun}
    if found := [mixture for mixture in _mixtures(made) if any(new in cells for cells in mixture.kinds.values())]:
        raise mixed_study(study.folder, found)


def mixed_study(folder: Path, found: Sequence[Mixture]) -> MixedStudy:
    told = "\n".join(f"  {mixture}" for mixture in found)
    return MixedStudy(f"the cells of {from_here(folder)} are not made of the same, so no table compares them:\n{told}\n"
                      f"  {WAYS_OUT}")  # fmt: skip


def _parts(study: Study, cell: Cell, facts: Mapping[str, Any]) -> dict[Part, Made]:
    return parts(facts, study.settings.get(cell.variant), name=cell.variant, seed=cell.seed)


def _mixtures(made: Mapping[str, Mapping[Part, Made]]) -> tuple[Mixture, ...]:
    found = []
    for part in dict.fromkeys(part for own in made.values() for part in own):
        told: dict[str, str] = {}
        kinds: dict[str, list[str]] = {}
        for cell, own in made.items():
            if part in own:
                kinds.setdefault(own[part].identity, []).append(cell)
                told.setdefault(own[part].identity, own[part].told)
        if len(kinds) > 1:
            found.append(Mixture(part.name, {told[identity]: tuple(cells) for identity, cells in kinds.items()}))
    return tuple(found)


def _has_rows(run_dir: Path) -> bool:
    rows = run_dir / "metrics.jsonl"
    return rows.is_file() and rows.stat().st_size > 0


def _listed(cells: Sequence[str], most: int = 6) -> str:
    more = f" and {len(cells) - most} more" if len(cells) > most else ""
    return ", ".join(cells[:most]) + more
