"""Diagnostics that a run has recorded, ready to draw: histograms, KL spikes, health warnings, `empg diagnose`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.evaluation.diagnosis import FOLDER, Diagnosis, read_diagnosis
from empg_cli.runs.histograms import FILE, Histogram
from empg_cli.runs.reading import RunFolder

WARNINGS = "health.jsonl"


@dataclass(frozen=True, slots=True)
class HealthWarning:
    update: int
    name: str
    """The detector, such as `kl_spike`."""
    text: str
    """One paragraph: the value, what it means, what to try."""
    task_id: str | None
    """The episode that shows it best, with its group, number in the group, and step (counted from 1)."""
    group: int | None
    index: int | None
    step: int | None


def histograms(run: RunFolder, name: str) -> dict[int, Histogram]:
    """By update, each with a range (low, high, edges) of its own; updates without such steps are left out.

    Args:
        name: `hist/step_entropy_won`, `hist/step_entropy_lost`, and with EMPG `hist/weight` (g),
            `hist/future_clarity` (f), `hist/credit_shift`.
    """
    return {
        record["update"]: Histogram(record[name]["low"], record[name]["high"], tuple(record[name]["counts"]))
        for record in _records(run.folder / FILE)
        if name in record
    }


def kl_spikes(run: RunFolder) -> tuple[int, ...]:
    """Updates at which the KL loss spiked, as `health/kl_spikes` counts them."""
    spikes, before = [], 0.0
    for update, row in run.rows.items():
        count = row.get("health/kl_spikes")
        if count is not None:
            if count > before:
                spikes.append(update)
            before = count
    return tuple(spikes)


def health_warnings(run: RunFolder) -> tuple[HealthWarning, ...]:
    """In the order they came."""
    return tuple(
        HealthWarning(record["update"], record["name"], record["text"], *_place(record.get("trajectory") or {}))
        for record in _records(run.folder / WARNINGS)
    )


def diagnosis(run: RunFolder) -> Diagnosis | None:
    """What `empg diagnose RUN` found: Proposition 1, gradient norms, Figure 3; None when it was not called."""
    return read_diagnosis(run.folder / FOLDER)


def _place(trajectory: Mapping[str, Any]) -> tuple[str | None, int | None, int | None, int | None]:
    return trajectory.get("task_id"), trajectory.get("group"), trajectory.get("index"), trajectory.get("step")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)
