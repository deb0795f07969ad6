"""Two run folders side by side: all that must be the same, bit for bit, whatever happened on the way."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from empg_cli.runs.history import HISTORY
from empg_cli.runs.rows import without_wall_clock
from scripts.faults.case import differences

KEPT_OUT = ("run_dir", "path", "folder", "seconds")
"""Keys of JSON files that say where or how fast, not what."""


def difference(straight: Path, other: Path) -> str:
    """The first difference in a sentence; empty for folders of equal runs."""
    for name, read in READERS.items():
        left, right = read(straight), read(other)
        if found := differences(left, right):
            return f"{name}: {found}"
    return ""


def metrics(run: Path) -> list[Any]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [without_wall_clock(json.loads(line)) for line in lines]


def table(run: Path) -> list[Any]:
    with (run / "metrics.csv").open(newline="") as file:
        return [without_wall_clock(row) for row in csv.DictReader(file)]


def histograms(run: Path) -> list[Any]:
    return (run / "histograms.jsonl").read_text().splitlines()


def checkpoints(run: Path) -> list[Any]:
    """Their names, and size and digest of every file in them as their manifests say, but for the seal of rows, which
    hold how long each update took."""
    found = []
    for manifest in sorted(run.glob("checkpoints/*/manifest.json")):
        files = json.loads(manifest.read_text())["files"]
        found += [manifest.parent.name, *sorted((name, file) for name, file in files.items() if name != HISTORY)]
    return found


def evaluations(run: Path) -> list[Any]:
    return [found for path in sorted(run.glob("evaluations/*")) for found in (path.name, _content(path))]


def trajectories(run: Path) -> list[Any]:
    """Those of evaluated updates: a stop keeps the ones of its own update too."""
    evaluated = {path.stem for path in run.glob("evaluations/*")}
    kept = [path for path in sorted(run.glob("trajectories/*")) if path.stem.rpartition("-")[0] in evaluated]
    return [line for path in kept for line in (path.name, *path.read_text().splitlines())]


def leftovers(run: Path) -> list[Any]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if "tmp" in path.name or path.name == ".owner")


def _content(path: Path) -> Any:
    content = json.loads(path.read_text())
    return {key: value for key, value in content.items() if key not in KEPT_OUT}


READERS = {
    "metrics.jsonl": metrics,
    "metrics.csv": table,
    "histograms.jsonl": histograms,
    "checkpoints": checkpoints,
    "evaluations": evaluations,
    "trajectories": trajectories,
    "what was left behind": leftovers,
}
