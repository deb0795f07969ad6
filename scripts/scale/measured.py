"""Phases of real runs: from run folders, or from the table of scripts/bench/ranks.py."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from empg_cli.config.schema import Model
from empg_cli.planning.duration import ANSWER, OBSERVATION, OPENING, WINDOW
from empg_cli.planning.job import MOST_TOKENS
from empg_cli.planning.shapes import Shape, shape_of
from scripts.scale.workload import Context, Lengths

PHASES = ("rollout", "logprob", "update")


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one number of processes: what its updates play, and the median seconds of their phases."""

    shape: Shape
    lengths: Lengths
    context: Context
    tasks: int
    group_size: int
    microbatch: int
    """Tokens of rows in a pass."""
    recomputes: bool
    seconds: Mapping[str, float]
    """By `PHASES`."""


def of_folder(folder: Path) -> Measured:
    """A run folder; its first update, which meets every code path anew, does not count."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("update", 0) > 1 and "timing_s/update" in row]
    if not rows:
        raise SystemExit(f"{folder}: no update after the first one has been measured")
    shape = shape_of(Model.model_validate(config["model"]), config["benchmark"]["name"])
    if shape is None:
        raise SystemExit(f"{folder}: the shape of its model is not known here")
    shared = _median(rows, "perf/shared")
    microbatch = config["trainer"]["tokens_per_microbatch"]
    tokens = MOST_TOKENS["cpu"] if microbatch == "auto" else int(microbatch)
    turns, answer = round(_median(rows, "episode/length/mean")), round(_median(rows, "response_length/mean"))
    return Measured(
        shape,
        _even(turns, answer),
        context_of(config["rollout"]["context"] == "transcript", is_chat=config["model"]["prompt"] == "chat"),
        tasks=config["trainer"]["tasks_per_update"],
        group_size=config["algo"]["group_size"],
        microbatch=round(tokens / (1 - shared)),
        recomputes=config["model"]["gradient_checkpointing"],
        seconds={phase: _median(rows, f"timing_s/{phase}") for phase in PHASES},
    )


def of_bench(content: Mapping[str, Any]) -> dict[int, Measured]:
    """What scripts/bench/ranks.py writes: number of processes -> what it measured."""
    table = content["tables"][0]
    episodes = re.search(r"of (\d+) million parameters: (\d+) episodes of (\d+) turns", table["title"])
    if episodes is None:
        raise SystemExit("not the table of scripts/bench/ranks.py")
    millions, played, turns = map(int, episodes.groups())
    given = re.search(r"--hidden[ =](\d+)", content["facts"]["command"])
    hidden = int(given[1]) if given else 512
    without = Shape(0, hidden, 8, 8, 8, hidden // 8, 7 * hidden // 2, is_tied=True, has_qkv_bias=True)
    vocabulary = max(1, round((millions * 1e6 - without.parameters) / hidden))
    shape = Shape(vocabulary, hidden, 8, 8, 8, hidden // 8, 7 * hidden // 2, is_tied=True, has_qkv_bias=True)
    cells = {row[0]: [float(cell.replace(",", "")) for cell in row[1:3]] for row in table["rows"]}
    return {
        size: Measured(
            shape,
            _even(turns, ANSWER[False]),
            context_of(True, is_chat=False),
            tasks=played // 8,
            group_size=8,
            microbatch=MOST_TOKENS["cpu"],
            recomputes=False,
            seconds={phase: cells[phase][column] for phase in PHASES},
        )
        for column, size in enumerate((1, 2))
    }


def read(path: Path) -> dict[int, Measured]:
    """A table of scripts/bench/ranks.py, or the metrics.jsonl of a run with one process."""
    if path.suffix == ".jsonl":
        return {1: of_folder(path.parent)}
    return of_bench(json.loads(path.read_text()))


def of_folders(folder: Path) -> dict[int, Measured]:
    """Run folders whose names are their numbers of processes."""
    found = {int(each.name): of_folder(each) for each in folder.iterdir() if each.name.isdigit()}
    if 1 not in found:
        raise SystemExit(f"{folder}: no run of one process (folder 1) to fit the constants to")
    return dict(sorted(found.items()))


def context_of(append_only: bool, *, is_chat: bool) -> Context:
    if append_only:
        return Context(True, OPENING[is_chat], OBSERVATION[is_chat], window=0, cached=0)
    return Context(False, 0, 0, window=WINDOW[is_chat], cached=WINDOW[is_chat] // 4)


def _even(turns: int, answer: int) -> Lengths:
    return Lengths(turns=max(1, turns), answer=max(1, answer), turn_spread=0.0, episode_spread=0.0)


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(statistics.median(row.get(name, 0.0) for row in rows))
