"""What the health checks of a run have seen, read back: KL spikes and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired

from typing_extensions import TypedDict

from empg_cli.reports.configurations import configurations
from empg_cli.runs.reading import RunFolder
from empg_cli.runs.shapes import OPEN, read_json_lines

WARNINGS = "health.jsonl"


class _Shown(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    task_id: str
    group: int
    index: int
    step: int


class _Line(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    update: int
    name: str
    text: str
    trajectory: NotRequired[_Shown | None]


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
    path = run.folder / WARNINGS
    if WARNINGS in run.damaged or not path.is_file():
        return ()
    return tuple(
        HealthWarning(line["update"], line["name"], line["text"], *_place(line.get("trajectory") or {}))
        for line in read_json_lines(path, _Line)
    )


def _place(trajectory: Mapping[str, Any]) -> tuple[str | None, int | None, int | None, int | None]:
    return trajectory.get("task_id"), trajectory.get("group"), trajectory.get("index"), trajectory.get("step")
