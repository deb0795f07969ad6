"""A study's comparison as tables and files. The numbers are made in `studies.comparison`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from empg_cli.files import write_atomically
from empg_cli.invocation import command
from empg_cli.observe.terminal import write_line
from empg_cli.reports.tables import NOTHING, Cell, Table, csv_text, latex, markdown, p_text, print_table
from empg_cli.stats.intervals import no_spread
from empg_cli.stats.paired import PairedDifference, pairs_for_p
from empg_cli.studies.comparison import BESIDE, SURE, Comparison, RunValue, VariantRow


def main_table(comparison: Comparison) -> Table:
    """A row per variant: mean over seeds with its interval, and the difference to the base."""
    scale, unit = _scale(comparison)
    header = ("variant", "seeds", f"{comparison.metric}{unit}", f"Δ to {comparison.base}", "pairs", "p", "p (Holm)")
    return Table(
        title=f"ablation {comparison.study}",
        header=header,
        rows=tuple(_variant_cells(row, scale) for row in comparison.rows),
        notes=_notes(comparison),
        warnings=(*mixed_warnings(comparison), *comparison.unfair),
    )


def mixed_warnings(comparison: Comparison) -> tuple[str, ...]:
    """What a table over unlike cells says above its numbers."""
    told = [f"MIXED {mixture}." for mixture in comparison.mixtures]
    left_out = [
        f"{row.variant} ({', '.join(map(str, seeds))})" for row in comparison.rows if (seeds := comparison.unlike(row))
    ]
    if told:
        told.append("Means are over all runs; Δ and p leave out seeds that a variant and the base have unlike"
                    + (f": {', '.join(left_out)}." if left_out else ", which are none here."))  # fmt: skip
    return tuple(told)


def runs_table(comparison: Comparison) -> Table:
    """A row per run, with the Wilson interval over its own tasks where the metric is a success rate."""
    scale, unit = _scale(comparison)
    rows = tuple(_run_cells(row.variant, run, scale) for row in comparison.rows for run in row.runs)
    header = ("variant", "seed", f"{comparison.metric}{unit}", "95% Wilson", "tasks", "after update")
    return Table(f"runs of ablation {comparison.study}", header, rows, ())


def variants_csv(comparison: Comparison) -> str:
    """A line per variant, numbers in full precision and in the metric's own unit; empty where there is none. Then
    come means over its runs, and in the last column the parts in which the runs of the table were not made alike."""
    columns = (
        "variant", "seeds", "mean", "low", "high", "difference", "difference_low", "difference_high", "pairs",
        "p", "p_floor", "p_is_exact", "p_holm", "bold", "mean_first", "mean_middle", "episodes", *BESIDE,
        "mixed",
    )  # fmt: skip
    lines = []
    for row in comparison.rows:
        interval, difference = row.interval, row.difference
        lines.append([
            row.variant, len(row.runs), row.mean,
            *((interval.low, interval.high) if interval else ("", "")),
            *map(_or_empty, (difference.mean, difference.low, difference.high, difference.n, difference.test.p_value,
                             difference.test.floor, difference.test.is_exact) if difference else [None] * 7),
            _or_empty(row.p_holm), row.is_sure,
            _mean([run.first[1] for run in row.runs]), _mean([run.middle[1] for run in row.runs]),
            _mean([run.episodes for run in row.runs]),
            *(_mean([run.beside.get(name) for run in row.runs]) for name in BESIDE),
            " ".join(dict.fromkeys(mixture.part for mixture in comparison.mixtures)),
        ])  # fmt: skip
    return csv_text(columns, lines)


def runs_csv(comparison: Comparison) -> str:
    """A line per run: its value, those on the way there, and what else may differ between variants."""
    columns = (
        "variant", "seed", "value", "wilson_low", "wilson_high", "tasks", "update", "folder",
        "first_update", "first_value", "middle_update", "middle_value", "episodes", *BESIDE,
    )  # fmt: skip
    lines = [
        [
            *(row.variant, run.seed, run.value, *(run.wilson or ("", "")), run.tasks or "", run.update, run.folder),
            *(*run.first, *run.middle, _or_empty(run.episodes), *(run.beside.get(name, "") for name in BESIDE)),
        ]
        for row in comparison.rows
        for run in row.runs
    ]
    return csv_text(columns, lines)


def json_text(comparison: Comparison) -> str:
    content = asdict(comparison)
    for row, source in zip(content["rows"], comparison.rows, strict=True):
        row["bold"] = source.is_sure
        row["interval"] = source.interval and source.interval._asdict()
        row["difference"] = source.difference and {
            **source.difference._asdict(),
            "test": source.difference.test._asdict(),
        }
    return json.dumps(content, indent=1) + "\n"


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """`ablation.{md,tex,csv,json}` and `runs.csv` in `folder`."""
    main, runs = main_table(comparison), runs_table(comparison)
    texts = {
        "ablation.md": markdown(main) + "\n" + markdown(runs),
        "ablation.tex": latex(main) + "\n" + latex(runs),
        "ablation.csv": variants_csv(comparison),
        "runs.csv": runs_csv(comparison),
        "ablation.json": json_text(comparison),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def print_comparison(comparison: Comparison, folder: Path, files: Sequence[Path], stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    print_table(main_table(comparison), stream)
    write_line(stream, f"tables   {folder}/{{{','.join(path.name for path in files)}}}")
    write_line(stream, f"report   {command('report', str(folder))}")


def _variant_cells(row: VariantRow, scale: float) -> tuple[Cell, ...]:
    interval, difference = row.interval, row.difference
    mean = f"{row.mean * scale:{_places(scale)}}" + _spread(interval and interval.high - row.mean, len(row.runs), scale)
    cells = [Cell(row.variant), Cell(str(len(row.runs))), Cell(mean)]
    if difference is None:
        return (*cells, *(Cell(NOTHING) for _ in range(4)))
    half = None if difference.high is None else difference.high - difference.mean
    return (
        *cells,
        Cell(f"{difference.mean * scale:+z{_places(scale)}}" + _spread(half, difference.n, scale), bold=row.is_sure),
        Cell(str(difference.n)),
        Cell(p_text(difference.test.p_value)),
        Cell(NOTHING if row.p_holm is None else p_text(row.p_holm)),
    )


def _spread(half: float | None, n: int, scale: float) -> str:
    """Half an interval; without one, that n values are equal. Never a ± 0, which would read as certainty."""
    if half is None:
        return f" (equal in all {n})" if n > 1 else ""
    text = f"{half * scale:{_places(scale)}}"
    return f" ± {text if float(text) else f'{half * scale:.1g}'}"


def _run_cells(variant: str, run: RunValue, scale: float) -> tuple[Cell, ...]:
    wilson = NOTHING
    if run.wilson is not None:
        wilson = f"[{run.wilson.low * scale:{_places(scale)}}, {run.wilson.high * scale:{_places(scale)}}]"
    texts = (variant, str(run.seed), f"{run.value * scale:{_places(scale)}}", wilson)
    return (*map(Cell, texts), Cell(str(run.tasks or NOTHING)), Cell(str(run.update)))


def _notes(comparison: Comparison) -> tuple[str, ...]:
    tested = [row.difference for row in comparison.rows if row.difference]
    tests = sum(row.difference is not None for row in comparison.rows)
    done = sum(len(row.runs) for row in comparison.rows)
    notes = [
        "±: 95 % t interval over seeds; Δ: paired by seed, with a 95 % t interval over the differences; "
        f"bold: p (Holm) is below {SURE} and that interval leaves out 0. "
        "The value is that of a run's last evaluation, never its best.",
    ]
    if tested:
        floors = dict.fromkeys(map(_floor, sorted(tested, key=lambda one: (one.n, -one.test.floor))))
        notes.append(f"p: two-sided sign-flip test, which cannot go below {', '.join(floors)}; "
                     f"Holm: over {tests} comparison{'s' if tests > 1 else ''}.")  # fmt: skip
        if (smallest := tests * min(one.test.floor for one in tested)) >= SURE:
            notes.append(f"Nothing can be bold: with so few pairs p (Holm) cannot go below {min(1.0, smallest):.4g}; "
                         f"it can be below {SURE} from {pairs_for_p(SURE, tests)} pairs on.")  # fmt: skip
    if twos := [row.variant for row in comparison.rows if _rests_on_two(row)]:
        notes.append(f"TWO VALUES: an interval over 2 seeds rests on the one distance between them (t = 12.7) and says "
                     f"little: {', '.join(twos)}.")  # fmt: skip
    if equal := sorted({n for row in comparison.rows for n in _equal(row)}):
        notes += [f"equal in all {n}: {no_spread(n, 'values')}, and are not certain for it." for n in equal]
    if done < comparison.runs_planned:
        notes.append(f"INCOMPLETE: {done} of {comparison.runs_planned} runs are done.")
    if comparison.seeds_planned < 2:
        notes.append("A single seed: no interval, so nothing here tells a difference from chance.")
    if comparison.confirms:
        notes.append(_tuned_in(comparison.confirms))
    facts = "; ".join(f"{key}: {value}" for key, value in comparison.facts.items())
    return (*notes, facts + ("" if comparison.facts.get("data") == "official" else " (not the official benchmark)"))


def _floor(difference: PairedDifference) -> str:
    kind = "exact" if difference.test.is_exact else "100,000 draws"
    return f"{difference.test.floor:.4g} with {difference.n} pairs ({kind})"


def _tuned_in(confirms: Mapping[str, Any]) -> str:
    winners = "; ".join(
        f"{arm} = {won['variant']} ({' '.join(won['overrides'])}), {won['mean']:.4g} there"
        for arm, won in confirms["winners"].items()
    )
    seeds, plan = ", ".join(map(str, confirms["seeds"])), confirms["plan"] or "none"
    budget = f"{confirms['draws']} settings an arm, seeds {seeds}"
    return f"Settings tuned in {confirms['study']} by {confirms['metric']}, {budget} (plan: {plan}): {winners}."


def _rests_on_two(row: VariantRow) -> bool:
    of_difference = row.difference is not None and row.difference.low is not None and row.difference.n == 2
    return of_difference or (row.interval is not None and row.interval.n == 2)


def _equal(row: VariantRow) -> list[int]:
    """How many values, or differences, are all the same."""
    of_values = [len(row.runs)] if row.interval is None and len(row.runs) > 1 else []
    of_difference = [row.difference.n] if row.difference is not None and row.difference.low is None else []
    return [n for n in (*of_values, *of_difference) if n > 1]


def _or_empty(value: object) -> object:
    return "" if value is None else value


def _scale(comparison: Comparison) -> tuple[float, str]:
    """Shares are shown in percent."""
    if comparison.unit == "share":
        return 100.0, " (%)"
    return 1.0, f" ({comparison.unit})" if comparison.unit else ""


def _places(scale: float) -> str:
    return ".1f" if scale == 100.0 else ".4g"


def _mean(values: Sequence[float | None]) -> float | str:
    """Empty where a run lacks the value: a mean over some of the runs would be of another set than its neighbours."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else ""
