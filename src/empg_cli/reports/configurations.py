"""Runs that differ only in their seed are one configuration: one curve, one colour, one name in a whole report. Other
code, packages or data make another one, as in the tables of studies (`runs.mixture`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from empg_cli.runs.provenance import parts
from empg_cli.runs.reading import RunFolder

COLOURS, DASHES = 8, 3
"""How many there are; beyond eight configurations the colours come again, dashed."""
MOST_KEYS_IN_A_LABEL = 3
MOST_OF_A_PART = 30
"""Characters of what a part was, such as versions of packages, in a label."""
NO_DIFFERENCE = ("seed", "run_dir", "resume", "logger.")
"""Settings that do not change what is learnt."""


@dataclass(frozen=True, slots=True)
class Configuration:
    label: str
    number: int
    """Place in the report."""
    runs: tuple[RunFolder, ...]
    """The finished ones; all of them where none is finished."""
    left_out: tuple[RunFolder, ...]
    """Unfinished, beside finished ones."""
    repeated: tuple[RunFolder, ...]
    """Of a seed that is there already: the same numbers, or a draw that is not one of a seed."""

    @property
    def all_runs(self) -> tuple[RunFolder, ...]:
        return (*self.runs, *self.left_out, *self.repeated)


def look(number: int) -> tuple[int, int]:
    """Places of the colour and of the dash of a configuration, the same in every chart of a report."""
    return number % COLOURS, number // COLOURS % DASHES


def configurations(runs: Sequence[RunFolder]) -> list[Configuration]:
    """In order of appearance."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(f"{run.group} {sorted(_made_of(run).items())}", []).append(run)
    labels = _labels([members[0] for members in groups.values()])
    found = []
    for number, (label, members) in enumerate(zip(labels, groups.values(), strict=True)):
        finished = [run for run in members if run.is_finished]
        left_out = tuple(run for run in members if not run.is_finished) if finished else ()
        counted: dict[int, RunFolder] = {}
        for run in finished or members:
            counted.setdefault(run.seed, run)
        repeated = tuple(run for run in finished or members if counted[run.seed] is not run)
        found.append(Configuration(label, number, tuple(counted.values()), left_out, repeated))
    return found


def _made_of(run: RunFolder) -> dict[str, str]:
    """Part -> its identity. Weights are left to the settings: those that are drawn differ from seed to seed."""
    made = parts(run.facts, None, name=run.group, seed=run.seed)
    return {part.name: own.identity for part, own in made.items() if part.name != "weights"}


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    """The runs' own labels; where those are equal, with the settings that differ."""
    labels = [run.label for run in runs]
    return [
        label if labels.count(label) == 1 else f"{label} {_difference(number, label, labels, runs)}"
        for number, label in enumerate(labels)
    ]


def _difference(number: int, label: str, labels: Sequence[str], runs: Sequence[RunFolder]) -> str:
    alike = [run for run, other in zip(runs, labels, strict=True) if other == label]
    own, made = _shaping(runs[number].config), _made_of(runs[number])
    keys = [key for key in own if any(_shaping(run.config).get(key) != own[key] for run in alike)]
    unlike = [part for part in made if any(_made_of(run).get(part) != made[part] for run in alike)]
    if 0 < len(keys) <= MOST_KEYS_IN_A_LABEL:
        return " ".join(f"{key.rpartition('.')[2]}={own[key]}" for key in keys)
    if unlike and not keys:
        return ", ".join(f"{part} {shorten(made[part], MOST_OF_A_PART, placeholder=' …')}" for part in unlike)
    return f"#{number + 1}"


def _shaping(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat(config).items() if not key.startswith(NO_DIFFERENCE)}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value; a mapping without keys is a value."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        values.update(flat(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value})
    return values
