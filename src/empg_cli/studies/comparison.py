"""A study as numbers: the value of every run, intervals over seeds, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.observe.catalogue import definition_of
from empg_cli.runs.mixture import Mixture, mixtures
from empg_cli.runs.provenance import parts
from empg_cli.runs.rows import read_rows
from empg_cli.runs.study import Cell, Study
from empg_cli.stats.intervals import Estimate, Interval, are_equal, t_interval, wilson_interval
from empg_cli.stats.paired import PairedDifference, holm, paired_difference
from empg_cli.studies.fairness import unfair
from empg_cli.studies.preregistration import read_plan

SUCCESS_RATE = "eval/success_rate"
BESIDE = {
    "kl_loss": "actor/kl_loss",
    "entropy": "actor/entropy",
    "valid_actions": "eval/valid_action_frac",
    "steps": "eval/length/mean",
}
"""What else may differ between variants, by the name of its column: metrics that are exported with every run."""
SURE = 0.05
"""p after Holm below which a difference is bold."""


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
    episodes: float | None
    """Training episodes that were played up to there."""
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
    """t interval over seeds; None with a single one, and where all values are equal."""
    difference: PairedDifference | None
    """To the base, over the seeds that both have, made alike; None for the base itself and with fewer than two."""
    p_holm: float | None

    @property
    def is_sure(self) -> bool:
        """What a table prints bold: p after Holm is below `SURE`, and the interval, if there is one, leaves out 0."""
        if self.difference is None or self.p_holm is None or self.p_holm >= SURE:
            return False
        low, high = self.difference.low, self.difference.high
        return low is None or high is None or low > 0 or high < 0


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
    mixtures: tuple[Mixture, ...] = ()
    """Parts that were not the same in all runs; differences leave out the pairs of seeds that they separate."""
    confirms: Mapping[str, Any] | None = None
    """Where the settings of the variants were tuned, as `Study.confirms`."""
    unfair: tuple[str, ...] = ()
    """What must be known before the numbers are compared: `studies/fairness.py`."""

    def pairs(self, row: VariantRow) -> list[tuple[float, float]]:
        """(value, value of the base), seed by seed, over the seeds that both have; empty for the base itself."""
        base = next((other for other in self.rows if other.variant == self.base), None)
        if base is None or row.variant == self.base:
            return []
        return _paired(row.runs, base.runs, self.mixtures)

    def differences(self, row: VariantRow) -> list[float]:
        return [mine - theirs for mine, theirs in self.pairs(row)]

    def unlike(self, row: VariantRow) -> list[int]:
        """Seeds that a variant and the base have, but not made of the same."""
        base = next((other.runs for other in self.rows if other.variant == self.base), ())
        return [mine.seed for mine, theirs in _both(row.runs, base) if _are_unlike(mine, theirs, self.mixtures)]


def compare(study: Study) -> Comparison | None:
    """Over the cells that are done; None when there is none with a value of the metric.

    Unlike cells are told in `mixtures`; whether they may be compared is for the caller to say.
    """
    runs: dict[str, list[RunValue]] = {}
    cells: dict[str, Cell] = {}
    counted: list[Cell] = []
    for cell in study.done():
        value = run_value(study.cell_dir(cell), study.metric, seed=cell.seed)
        if value is None:
            continue
        runs.setdefault(cell.variant, []).append(value)
        cells[cell.variant] = cell
        counted.append(cell)
    if not runs:
        return None
    mixed = mixtures(study, counted)
    names = [name for name in study.variants if name in runs]
    paired = {name: _difference(runs[name], runs.get(study.base, []), mixed) for name in names if name != study.base}
    tested = {name: difference for name, difference in paired.items() if difference is not None}
    adjusted = holm([difference.test.p_value for difference in tested.values()])
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
                interval=None if are_equal(numbers) else t_interval(numbers),
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
        facts=_facts(study, counted, runs),
        mixtures=mixed,
        confirms=study.confirms,
        unfair=tuple(unfair(study, {cell.seed for cell in counted}, _episodes(runs))),
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
        episodes=row.get("env/episodes"),
        beside={
            column: values[max(values)]
            for column, name in BESIDE.items()
            if (values := {number: value for number, row in rows.items() if (value := row.get(name)) is not None})
        },
    )


def is_up_to_one(unit: str) -> bool:
    """Of a metric that every benchmark counts from 0 to 1."""
    return unit == "share" or unit.endswith("0..1")


def _episodes(runs: Mapping[str, Sequence[RunValue]]) -> dict[str, float]:
    """Variant -> mean over its runs; without variants one of whose runs does not tell."""
    counts = {name: [run.episodes for run in values] for name, values in runs.items()}
    known = {name: [count for count in found if count is not None] for name, found in counts.items()}
    return {name: sum(found) / len(found) for name, found in known.items() if len(found) == len(counts[name])}


def _difference(
    mine: Sequence[RunValue], base: Sequence[RunValue], mixed: Sequence[Mixture]
) -> PairedDifference | None:
    pairs = _paired(mine, base, mixed)
    if len(pairs) < 2:
        return None
    return paired_difference([value for value, _ in pairs], [value for _, value in pairs])


def _paired(mine: Sequence[RunValue], base: Sequence[RunValue], mixed: Sequence[Mixture]) -> list[tuple[float, float]]:
    return [(run.value, other.value) for run, other in _both(mine, base) if not _are_unlike(run, other, mixed)]


def _both(mine: Sequence[RunValue], base: Sequence[RunValue]) -> list[tuple[RunValue, RunValue]]:
    base_by_seed = {run.seed: run for run in base}
    return [(run, base_by_seed[run.seed]) for run in mine if run.seed in base_by_seed]


def _are_unlike(one: RunValue, other: RunValue, mixed: Sequence[Mixture]) -> bool:
    return any(mixture.separates(one.folder, other.folder) for mixture in mixed)


def _facts(study: Study, counted: Sequence[Cell], runs: Mapping[str, Sequence[RunValue]]) -> dict[str, str]:
    facts: dict[str, set[str]] = {"data": set()}
    for cell in counted:
        run = study.cell_facts(cell)
        facts["data"].add(str(run.get("data", {}).get("source", "unknown")))
        for part, made in parts(run, study.settings.get(cell.variant), name=cell.variant, seed=cell.seed).items():
            if part.name in ("code", "packages"):
                facts.setdefault(part.name, set()).add(made.identity)
        if commit := run.get("commit"):
            facts.setdefault("commit", set()).add(str(commit))
        for key, value in study.facts[cell.variant].items():
            facts.setdefault(key, set()).add(str(value))
    if plan := read_plan(study.folder):
        facts["plan"] = {str(plan)}
    tasks = {str(run.tasks) for values in runs.values() for run in values if run.tasks}
    facts |= {"tasks": tasks} if tasks else {}
    return {key: next(iter(values)) if len(values) == 1 else "varies" for key, values in facts.items()}
