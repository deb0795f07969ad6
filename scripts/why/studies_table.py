"""Over all studies: EMPG and GRPO side by side, and what was played, by which code and for how long: `python -m
scripts.why.tables answer studies`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.why.play import STUDIES
from scripts.why.predictions import points
from scripts.why.records import (
    by_temperature,
    curves,
    late_success,
    markdown,
    of_cells,
    runs_of,
    study_of,
    values_of,
)


class Compared(NamedTuple):
    """A study with an arm `empg` and one of GRPO."""

    study: str
    agent: str
    settings: str
    games: str
    base: str | None = None
    """None = the study's own."""


SHIPPED, CHOSEN = "the one that ships", "step 1,250, chosen"
COMPARED = (
    Compared("fair-confirmed", SHIPPED, "tuned alike", "ALFWorld, unseen"),
    Compared("main-alfworld", SHIPPED, "the same, new seeds", "ALFWorld, unseen"),
    Compared("fair-official", SHIPPED, "the same", "official ALFWorld, unseen"),
    Compared("controls", CHOSEN, "as shipped", "ALFWorld, seen", "grpo"),
    Compared("fair-1250-confirmed", CHOSEN, "tuned alike", "ALFWorld, unseen"),
    Compared("main-alfworld-1250", CHOSEN, "the same, new seeds", "ALFWorld, unseen"),
    Compared("larger-confirmed", "1.75 M parameters", "tuned alike", "ALFWorld, unseen"),
    Compared("window", "window context", "as shipped", "ALFWorld, seen"),
    Compared("main-webshop", "WebShop's", "tuned alike", "WebShop, test"),
    Compared("main-deepsearch", "Deep Search's", "tuned alike", "Deep Search, test"),
)


def answer_table(records: Path) -> str:
    """Markdown, a line for each finished study of `COMPARED`: EMPG minus GRPO in points of success."""
    head = ["agent", "settings", "evaluated on", "seeds", "EMPG − GRPO", "greedy", "at temperature 1", "in training"]
    lines = [head, [*["---"] * 4, *["---:"] * 4]]
    return markdown([*lines, *(row for one in COMPARED if (row := _answer(records, one)))])


def _answer(records: Path, compared: Compared) -> list[str] | None:
    archive = records / f"{compared.study}.tar.xz"
    if not archive.is_file():
        return None
    study = study_of(archive)
    if sum(1 for _ in of_cells(archive, study, "summary.json")) < len(study["cells"]):
        return None
    values = values_of(archive)
    base = compared.base or study["base"]
    measured = records / f"{compared.study}-temperatures.csv"
    at = by_temperature(measured) if measured.is_file() else {}
    told = [_gap(of, base) if of else "–" for of in (values, at.get(0.0), at.get(1.0), late_success(archive, study))]
    return [compared.agent, compared.settings, compared.games, spans(study["seeds"]), *told]


def _gap(values: Mapping[str, Mapping[int, float]], base: str) -> str:
    return points([value - values[base][seed] for seed, value in values["empg"].items()])


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
