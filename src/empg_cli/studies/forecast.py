"""Before a study is started: how long it will take, and how many seeds it needs."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.runs.config_file import is_run, saved_values
from empg_cli.runs.rows import read_rows
from empg_cli.runs.study import Study
from empg_cli.stats.intervals import are_equal
from empg_cli.stats.paired import pairs_needed

RUN_FOLDERS = ("runs/*/*", "multirun/*/*", "ablations/*/*")
"""Where runs lie that may have been timed, from the working directory."""
MAX_RUNS_READ = 200
USUAL_SDS = (0.02, 0.04, 0.06, 0.08)
"""Standard deviations that the plan is shown for while nobody has measured one."""
MIN_PILOT_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants to be able to see."""

    difference: float
    """In the units of the metric; a share for a success rate."""
    sd: float | None = None
    """Standard deviation over seeds of the paired difference; None = from the study's own runs if there are enough."""


@dataclass(frozen=True, slots=True)
class SeedsNeeded:
    sd: float
    source: str
    seeds: int | None
    """None: more than anyone runs."""


@dataclass(frozen=True, slots=True)
class Forecast:
    difference: float
    pending: int
    seconds_per_update: float | None
    """Median over the runs below, evaluations and checkpoints included; None when no run with these settings exists."""
    timed_runs: int
    seconds: float | None
    """For the pending cells, spread over the jobs; None where a variant has not been timed."""
    untimed: tuple[str, ...]
    """Variants with pending cells that no run at hand has cost as much as."""
    jobs: int
    seeds_needed: tuple[SeedsNeeded, ...]


def forecast(study: Study, wish: Wish, *, jobs: int = 1) -> Forecast:
    timings = list(_timings(study))
    pending = study.pending()
    left = dict.fromkeys(cell.variant for cell in pending)
    paces = {name: pace for name in left if (pace := _seconds_per_update(study, name, timings)) is not None}
    untimed = tuple(name for name in left if name not in paces)
    cells = [paces[cell.variant] * int(study.facts[cell.variant]["updates"]) for cell in pending if not untimed]
    return Forecast(
        difference=wish.difference,
        pending=len(pending),
        seconds_per_update=statistics.median(timing.seconds for timing in timings) if timings else None,
        timed_runs=len(timings),
        seconds=None if untimed else _until_the_last(cells, jobs),
        untimed=untimed,
        jobs=jobs,
        seeds_needed=tuple(_seeds_needed(study, wish)),
    )


def cost_digest(values: Mapping[str, Any]) -> str:
    """Digest of the settings that the duration of an update depends on, from a configuration as plain data."""
    counted = {key: values[key] for key in ("model", "benchmark", "rollout")}
    trainer = {
        key: value for key, value in values["trainer"].items() if key not in ("updates", "lr", "lr_warmup", "health")
    }
    content = [counted, trainer, values["algo"]["group_size"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class _Timing:
    cost: str
    algorithm: str
    seconds: float
    """Per update."""


def _seconds_per_update(study: Study, variant: str, timings: Sequence[_Timing]) -> float | None:
    """Median over the runs that are most like the variant: of its cost and algorithm, else of its cost, else None."""
    cost, algorithm = study.costs[variant], str(study.facts[variant]["algorithm"])
    of_cost = [timing for timing in timings if timing.cost == cost]
    alike = [timing for timing in of_cost if timing.algorithm == algorithm] or of_cost
    return statistics.median(timing.seconds for timing in alike) if alike else None


def _until_the_last(cells: Sequence[float], jobs: int) -> float:
    """Seconds until cells of this many seconds are done, when each, in order, is begun by the first job to be free."""
    busy_until = [0.0] * jobs
    for seconds in cells:
        heapq.heapreplace(busy_until, busy_until[0] + seconds)
    return max(busy_until)


def _timings(study: Study) -> Iterator[_Timing]:
    """The newest runs at hand with the same cost as one of the study's variants, the study's own first."""
    wanted = set(study.costs.values())
    found = [study.cell_dir(cell) for cell in study.cells]
    others = [folder for pattern in RUN_FOLDERS for folder in Path().glob(pattern)]
    found += sorted(others, key=lambda folder: (-_changed(folder), str(folder)))
    runs = (folder for folder in dict.fromkeys(map(Path.resolve, found)) if is_run(folder))
    for folder in islice(runs, MAX_RUNS_READ):
        try:
            values = saved_values(folder)
        except UserError:  # a stranger's; the study's own cells were looked at before
            continue
        if (
            not {"model", "benchmark", "rollout", "trainer", "algo"} <= values.keys()
            or (cost := cost_digest(values)) not in wanted
        ):
            continue
        rows = read_rows(folder / "metrics.jsonl")
        updates = max(rows, default=0)
        seconds = math.fsum(row.get("perf/time_per_step") or 0.0 for row in rows.values())
        if updates and seconds:
            yield _Timing(cost, str(values["algo"]["name"]), seconds / updates)


def _changed(path: Path) -> float:
    """When it was, as a time stamp; 0.0 for what has gone meanwhile: others work here too."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _seeds_needed(study: Study, wish: Wish) -> Iterator[SeedsNeeded]:
    if wish.sd is not None:
        sources: Sequence[tuple[float, str]] = [(wish.sd, "given")]
    elif pilot := _pilot_sds(study):
        sources = pilot
    else:
        sources = [(sd, "assumed") for sd in USUAL_SDS]
    for sd, source in sources:
        try:
            seeds = pairs_needed(wish.difference, sd)
        except ValueError:
            seeds = None
        yield SeedsNeeded(sd, source, seeds)


def _pilot_sds(study: Study) -> list[tuple[float, str]]:
    """Of each variant's difference to the base, from the finished runs of the study that this one joins."""
    from empg_cli.studies.comparison import compare
    from empg_cli.studies.growth import joined

    comparison = compare(joined(study))
    if comparison is None:
        return []
    pilots = []
    for row in comparison.rows:
        differences = comparison.differences(row)
        if len(differences) >= MIN_PILOT_SEEDS and not are_equal(differences):  # equal ones do not say how they spread
            source = f"measured: {row.variant} - {comparison.base}, {len(differences)} seeds"
            pilots.append((statistics.stdev(differences), source))
    return pilots
