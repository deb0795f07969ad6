"""What was played, by which code, and how long it took: `python -m scripts.why.tables studies`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.why.play import STUDIES
from scripts.why.records import curves, markdown, runs_of, study_of


def studies_table(records: Path) -> str:
    """Markdown, a line for each study that has a record, in the order in which they are played."""
    lines = [["study", "runs", "seeds", "commit", "core hours"], ["---", "---:", "---:", "---", "---:"]]
    lines += [_cells(name, path) for name in STUDIES if (path := records / f"{name}.tar.xz").is_file()]
    return markdown(lines)


def _cells(name: str, archive: Path) -> list[str]:
    study = study_of(archive)
    played = list(curves(archive, study))
    planned = len(study["cells"])
    runs = str(planned) if len(played) == planned else f"{len(played)} of {planned}"
    commits = sorted({run["commit"][:7] for _, _, run in runs_of(archive)})
    hours = math.fsum(seconds(rows) for _, _, rows in played) / 3600
    return [f"`{name}`", runs, spans(study["seeds"]), ", ".join(commits), f"{hours:.1f}"]


def seconds(rows: Sequence[dict[str, Any]]) -> float:
    """Of rollouts, updates and evaluations of a run, on its core; starting is not counted."""
    return math.fsum(value for row in rows for key, value in row.items() if key.startswith("timing_s/"))


def spans(seeds: Sequence[int]) -> str:
    """`0 to 4, 7` for 0, 1, 2, 3, 4, 7."""
    found: list[list[int]] = []
    for seed in sorted(seeds):
        if found and seed == found[-1][-1] + 1:
            found[-1].append(seed)
        else:
            found.append([seed])
    return ", ".join(f"{one[0]} to {one[-1]}" if len(one) > 1 else str(one[0]) for one in found)
