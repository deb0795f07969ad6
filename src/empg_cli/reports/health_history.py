"""What the health checks of a run have seen, read back: KL spikes and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from empg_cli.reports.configurations import configurations
from empg_cli.runs.reading import RunFolder
from empg_cli.runs.rows import read_records

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


def spike_note(runs: Sequence[RunFolder]) -> str:
    """How many runs of each configuration had a KL spike; empty where no run has counted them."""
    parts = []
    for configuration in configurations(runs):
        counted = [run for run in configuration.runs if run.last("health/kl_spikes")]
        if counted:
            spiked = sum(bool(kl_spikes(run)) for run in counted)
            parts.append(f"{configuration.label} {spiked} of {len(counted)}")
    return f"runs with a KL spike: {', '.join(parts)}" if parts else ""


def health_warnings(run: RunFolder) -> tuple[HealthWarning, ...]:
    """In the order they came."""
    records = [] if WARNINGS in run.damaged else read_records(run.folder / WARNINGS)
    return tuple(
        HealthWarning(record["update"], record["name"], record["text"], *_place(record.get("trajectory") or {}))
        for record in records
    )


def _place(trajectory: Mapping[str, Any]) -> tuple[str | None, int | None, int | None, int | None]:
    return trajectory.get("task_id"), trajectory.get("group"), trajectory.get("index"), trajectory.get("step")
