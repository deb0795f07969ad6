"""Runs that differ only in their seed are one configuration: one curve, one colour, one name in a whole report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from empg_cli.runs.reading import RunFolder

COLOURS, DASHES = 8, 3
"""How many there are; beyond eight configurations the colours come again, dashed."""
MOST_KEYS_IN_A_LABEL = 3
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


def look(number: int) -> tuple[int, int]:
    """Places of the colour and of the dash of a configuration, the same in every chart of a report."""
    return number % COLOURS, number // COLOURS % DASHES


def configurations(runs: Sequence[RunFolder]) -> list[Configuration]:
    """In order of appearance."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    labels = _labels([members[0] for members in groups.values()])
    found = []
    for number, (label, members) in enumerate(zip(labels, groups.values(), strict=True)):
        finished = tuple(run for run in members if run.is_finished)
        left_out = tuple(run for run in members if not run.is_finished) if finished else ()
        found.append(Configuration(label, number, finished or tuple(members), left_out))
    return found


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    """The runs' own labels; where those are equal, with the settings that differ."""
    labels = [run.label for run in runs]
    return [
        label if labels.count(label) == 1 else f"{label} {_difference(number, label, labels, runs)}"
        for number, label in enumerate(labels)
    ]


def _difference(number: int, label: str, labels: Sequence[str], runs: Sequence[RunFolder]) -> str:
    alike = [_shaping(run.config) for run, other in zip(runs, labels, strict=True) if other == label]
    own = _shaping(runs[number].config)
    keys = [key for key in own if any(flat.get(key) != own[key] for flat in alike)]
    if not 0 < len(keys) <= MOST_KEYS_IN_A_LABEL:
        return f"#{number + 1}"
    return " ".join(f"{key.rpartition('.')[2]}={own[key]}" for key in keys)


def _shaping(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat(config).items() if not key.startswith(NO_DIFFERENCE)}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value; a mapping without keys is a value."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        values.update(flat(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value})
    return values
