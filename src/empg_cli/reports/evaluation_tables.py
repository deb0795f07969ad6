"""Evaluations as tables: several of one policy by task type, by seed, and pass@k; two on the same tasks, paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from empg_cli.evaluation.head_to_head import PairedComparison
from empg_cli.reports.tables import NOTHING, Cell, Table, p_text
from empg_cli.stats.intervals import no_spread
from empg_cli.stats.paired import PairedCounts
from empg_cli.stats.pass_at_k import MIN_TASKS


def evaluation_tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of a result that has `temperatures`, one temperature after the other."""
    data = result["data"]
    where = f"{_played(data)}, {result['split']}"
    for entry in result["temperatures"]:
        title = f"{where}, temperature {entry['temperature']:g}"
        yield _by_type(title, entry)
        if len(entry["seeds"]) > 1:
            yield _by_seed(title, entry)
        if "pass_at_k" in entry:
            yield _pass_at_k(title, entry)


def _by_type(title: str, entry: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(str(row["kind"])),
            Cell(str(row["n"])),
            Cell(_percent(row["success_rate"])),
            Cell(_half(row)),
            Cell(_number(row["score"], ".3f")),
            Cell(_number(row["steps"], ".1f")),
        )
        for row in entry["rows"]
    )
    seeds, samples = len(entry["seeds"]), entry["samples"]
    notes = [f"seeds: {seeds}; attempts at each task with each seed: {samples}; n: tasks, the same in every attempt."]
    if seeds > 1:
        notes.append("±: half of the 95 % t interval over seeds: chance in sampling, not in the choice of tasks.")
        notes += [f"equal: {note}." for note in _equal_notes(entry["rows"])]
    elif entry["temperature"] == 0:
        notes.append("Greedy decoding is played once.")
    if any(row["kind"] in ("ID", "OOD", "overall") for row in entry["rows"]):
        notes.append("ID, OOD, overall: each data source counts once.")
    if entry["not_judged"]:
        notes.append(f"not judged: {entry['not_judged']} episodes (environment or server failed; they count nowhere)")
    header = ("task type", "n", "success", "±", "score", "steps")
    return Table(title, header, rows, tuple(notes))


def _by_seed(title: str, entry: Mapping[str, Any]) -> Table:
    rows = tuple(
        (Cell(str(run["seed"])), Cell(str(run["n"])), Cell(_percent(run["success_rate"])), Cell(_interval(run)))
        for run in entry["runs"]
    )
    kind = "Wilson interval" if entry["samples"] == 1 else "bootstrap over tasks (several attempts at each)"
    return Table(f"by seed: {title}", ("seed", "n", "success", "95% interval"), rows, (f"interval: {kind}.",))


def _pass_at_k(title: str, entry: Mapping[str, Any]) -> Table:
    ks = list(dict.fromkeys(k for row in entry["pass_at_k"] for k in row["k"]))
    rows = tuple(
        (Cell(str(row["kind"])), *(Cell(_with_interval(row["k"].get(k))) for k in ks)) for row in entry["pass_at_k"]
    )
    attempts = entry["samples"] * len(entry["seeds"])
    note = (
        f"pass@k: 1 - C(n-c, k) / C(n, k) with n = {attempts} attempts (arXiv 2107.03374, Eq. 1); "
        f"interval: 95 % bootstrap over tasks, from {MIN_TASKS} tasks on."
    )
    return Table(f"pass@k: {title}", ("task type", *(f"k = {k}" for k in ks)), rows, (note,))


def paired_table(comparison: PairedComparison) -> Table:
    a, b = comparison.a, comparison.b
    header = ("task type", "n", "A", "B", "B - A", "95% interval", "only A", "only B", "p")
    notes = [
        f"A: {a.path}",
        f"B: {b.path}",
        "interval: paired (Agresti and Min); p: exact two-sided sign test over the tasks that only one of them solved; "
        "bold: the interval over all tasks leaves out 0 (task types are not corrected for their number: never bold). "
        "One evaluation of each: chance in training is not in it (`empg ablate`).",
    ]
    if a.temperature != b.temperature:
        notes.append(f"The temperatures differ: {a.temperature:g} in A, {b.temperature:g} in B.")
    if comparison.not_judged:
        notes.append(f"{comparison.not_judged} tasks left out: the environment failed in A or in B.")
    title = f"{_played(a.data)}, {a.split}"
    rows = (*(_paired_cells(row) for row in comparison.kinds), _paired_cells(comparison.total, may_be_bold=True))
    return Table(title, header, rows, tuple(notes))


def _played(data: Mapping[str, Any]) -> str:
    """Some older evaluations of benchmarks from outside do not say its name."""
    return f"{data.get('name', 'a benchmark')} ({data['source']} data)"


def _paired_cells(row: PairedCounts, *, may_be_bold: bool = False) -> tuple[Cell, ...]:
    _, low, high, _ = row.difference
    interval = f"[{100 * low:+z.1f}, {100 * high:+z.1f}]"
    texts = (row.kind, str(row.n), f"{row.rate_a:.1%}", f"{row.rate_b:.1%}")
    is_sure = may_be_bold and (low > 0 or high < 0)
    return (
        *map(Cell, texts),
        Cell(f"{100 * row.difference.value:+z.1f}", bold=is_sure),
        *map(Cell, (interval, str(row.only_a), str(row.only_b), p_text(row.p_value))),
    )


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1%}"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else f"{value:{form}}"


def _half(row: Mapping[str, Any]) -> str:
    """Of rows with several seeds and no interval all seeds are equal."""
    if row["hi"] is None:
        return "equal" if row["success_rate"] is not None and row["seeds"] > 1 else NOTHING
    return f"{100 * (row['hi'] - row['success_rate']):.1f}"


def _equal_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    seeds = sorted({row["seeds"] for row in rows if _half(row) == "equal"})
    return [f"{no_spread(n)}, and are not certain for it" for n in seeds]


def _interval(row: Mapping[str, Any]) -> str:
    return NOTHING if row["lo"] is None else f"[{100 * row['lo']:.1f}, {100 * row['hi']:.1f}]"


def _with_interval(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NOTHING
    return _percent(found["value"]) + ("" if found["lo"] is None else f" {_interval(found)}")
