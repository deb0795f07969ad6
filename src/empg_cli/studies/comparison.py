"""A study as numbers: the value of every run, intervals over seeds, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.observe.catalogue import definition_of
from empg_cli.runs.rows import read_rows
from empg_cli.runs.run_file import read_run_file
from empg_cli.runs.study import Cell, Study
from empg_cli.stats.intervals import Estimate, Interval, t_interval, wilson_interval
from empg_cli.stats.paired import PairedDifference, holm, paired_difference

SUCCESS_RATE = "eval/success_rate"
BESIDE = {
    "kl_loss": "actor/kl_loss",
    "entropy": "actor/entropy",
    "valid_actions": "eval/valid_action_frac",
    "steps": "eval/length/mean",
}
"""What else may differ between variants, by the name of its column: metrics that are exported with every run."""


@dataclass(frozen=True, slots=True)
class RunValue:
    seed: int
    value: float
    update: int
    """The update it was measured after."""
    wilson: Interval | None
    """Over the tasks of this run; for success rates only."""
    tasks: int | None
    folder: str
    first: tuple[int, float]
    """Update and value of the first measurement, of the initial policy if that was evaluated."""
    middle: tuple[int, float]
    """Of the one nearest to half of the updates: a final value alone does not say who learns faster."""
    beside: Mapping[str, float]
    """The last values of `BESIDE` that the run has logged."""


@dataclass(frozen=True, slots=True)
class VariantRow:
    variant: str
    overrides: tuple[str, ...]
    runs: tuple[RunValue, ...]
    """By seed; cells that are not done are missing."""
    mean: float
    interval: Estimate | None
    """t interval over seeds; None with a single one."""
    difference: PairedDifference | None
    """To the base, over the seeds that both have; None for the base itself and with fewer than two such seeds."""
    p_holm: float | None

    @property
    def is_sure(self) -> bool:
        """The interval of the difference leaves out 0: the only thing that a table prints bold."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    study: str
    metric: str
    base: str
    unit: str
    rows: tuple[VariantRow, ...]
    seeds_planned: int
    runs_planned: int
    facts: Mapping[str, str]
    """What holds for all variants, or `varies`."""

    def pairs(self, row: VariantRow) -> list[tuple[float, float]]:
        """(value, value of the base), seed by seed, over the seeds that both have; empty for the base itself."""
        base = next((other for other in self.rows if other.variant == self.base), None)
        if base is None or row.variant == self.base:
            return []
        return _paired(row.runs, base.runs)

    def differences(self, row: VariantRow) -> list[float]:
        return [mine - theirs for mine, theirs in self.pairs(row)]


def compare(study: Study) -> Comparison | None:
    """Over the cells that are done; None when there is none with a value of the metric."""
    runs: dict[str, list[RunValue]] = {}
    cells: dict[str, Cell] = {}
    data: set[str] = set()
    for cell in study.done():
        value = run_value(study.cell_dir(cell), study.metric, seed=cell.seed)
        if value is None:
            continue
        runs.setdefault(cell.variant, []).append(value)
        cells[cell.variant] = cell
        data.add(str(read_run_file(study.cell_dir(cell)).get("data", {}).get("source", "unknown")))
    if not runs:
        return None
    names = [name for name in study.variants if name in runs]
    paired = {name: _difference(runs[name], runs.get(study.base, [])) for name in names if name != study.base}
    tested = [name for name, difference in paired.items() if difference is not None]
    adjusted = holm([difference.test.p_value for name in tested if (difference := paired[name]) is not None])
    p_holm = dict(zip(tested, adjusted, strict=True))
    rows = []
    for name in names:
        values = sorted(runs[name], key=lambda run: run.seed)
        numbers = [run.value for run in values]
        rows.append(
            VariantRow(
                variant=name,
                overrides=cells[name].overrides,
                runs=tuple(values),
                mean=sum(numbers) / len(numbers),
                interval=t_interval(numbers) if len(numbers) > 1 else None,
                difference=paired.get(name),
                p_holm=p_holm.get(name),
            )
        )
    return Comparison(
        study=study.name,
        metric=study.metric,
        base=study.base,
        unit=definition.unit if (definition := definition_of(study.metric)) else "",
        rows=tuple(rows),
        seeds_planned=len(study.seeds),
        runs_planned=len(study.cells),
        facts=_facts(study, names, runs, data),
    )


def run_value(run_dir: Path, metric: str, *, seed: int) -> RunValue | None:
    """The metric in the last row of a run that has it; never the best one."""
    rows = read_rows(run_dir / "metrics.jsonl")
    measured = {update: (value, row) for update, row in rows.items() if (value := row.get(metric)) is not None}
    if not measured:
        return None
    update = max(measured)
    value, row = measured[update]
    tasks = row.get("eval/n")
    wilson = None
    if metric == SUCCESS_RATE and tasks:
        wilson = wilson_interval(round(value * tasks), int(tasks))
    first, middle = min(measured), min(measured, key=lambda candidate: abs(candidate - update / 2))
    return RunValue(
        seed=seed,
        value=value,
        update=update,
        wilson=wilson,
        tasks=int(tasks) if tasks else None,
        folder=run_dir.name,
        first=(first, measured[first][0]),
        middle=(middle, measured[middle][0]),
        beside={
            column: values[max(values)]
            for column, name in BESIDE.items()
            if (values := {number: value for number, row in rows.items() if (value := row.get(name)) is not None})
        },
    )


def _difference(mine: Sequence[RunValue], base: Sequence[RunValue]) -> PairedDifference | None:
    pairs = _paired(mine, base)
    if len(pairs) < 2:
        return None
    return paired_difference([value for value, _ in pairs], [value for _, value in pairs])


def _paired(mine: Sequence[RunValue], base: Sequence[RunValue]) -> list[tuple[float, float]]:
    base_by_seed = {run.seed: run.value for run in base}
    return [(run.value, base_by_seed[run.seed]) for run in mine if run.seed in base_by_seed]


def _facts(study: Study, names: list[str], runs: dict[str, list[RunValue]], data: set[str]) -> dict[str, str]:
    facts: dict[str, set[Any]] = {"data": set(data)}
    for name in names:
        for key, value in study.facts[name].items():
            facts.setdefault(key, set()).add(str(value))
        facts.setdefault("tasks", set()).update(str(run.tasks) for run in runs[name] if run.tasks)
    return {key: next(iter(values)) if len(values) == 1 else "varies" for key, values in facts.items() if values}
