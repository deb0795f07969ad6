"""Several evaluations of one policy on the same tasks, by seed, sample and temperature, as one result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from empg_cli.config.schema import EvalConfig
from empg_cli.stats.intervals import are_equal, t_interval, wilson_interval
from empg_cli.stats.pass_at_k import MIN_TASKS, ks, mean_over_tasks, pass_at_k
from empg_cli.types import Status

ALL = "all"
NOT_JUDGED = str(Status.ENV_ERROR)


@dataclass(frozen=True, slots=True)
class Pass:
    """One attempt at every task of the split."""

    temperature: float
    seed: int
    sample: int

    @property
    def name(self) -> str:
        """Of its file."""
        sample = f"-sample-{self.sample}" if self.sample else ""
        return f"temperature-{_shortest(self.temperature)}-seed-{self.seed}{sample}"


def _shortest(number: float) -> str:
    """`1`, `0.4`: as it is written, but never as another number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


@dataclass(frozen=True, slots=True)
class PlayedPass:
    """A pass and its row for each task (`Evaluation.tasks()`)."""

    which: Pass
    tasks: Sequence[Mapping[str, Any]]


def passes(cfg: EvalConfig) -> list[Pass]:
    """Temperature by temperature, seed by seed. Greedy decoding is played once: its attempts would all be the same."""
    temperatures = [0.0] if cfg.policy == "expert" else cfg.temperature_list
    return [
        Pass(temperature, seed, sample)
        for temperature in temperatures
        for repeats in (temperature > 0 or cfg.policy == "expert",)
        for seed in (cfg.seed_list if repeats else cfg.seed_list[:1])
        for sample in range(cfg.samples if repeats else 1)
    ]


def summarise_passes(
    played: Sequence[PlayedPass], averages: Mapping[str, Sequence[str]] | None = None
) -> list[dict[str, Any]]:
    """One entry for each temperature: its runs, a row for each task type and for all tasks, and pass@k.

    Args:
        averages: name -> task types, each of which counts once in that row (ID, OOD and overall of Deep Search).
    """
    temperatures = dict.fromkeys(one.which.temperature for one in played)
    return [
        _summarise([one for one in played if one.which.temperature == temperature], averages or {})
        for temperature in temperatures
    ]


def _summarise(played: Sequence[PlayedPass], averages: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    seeds = list(dict.fromkeys(one.which.seed for one in played))
    samples = len(played) // len(seeds)
    by_seed = {seed: _Attempts([one for one in played if one.which.seed == seed]) for seed in seeds}
    everything = _Attempts(played)
    kinds = everything.kinds()
    groups = {kind: [kind] for kind in kinds} | {ALL: kinds}
    rows = [_row(name, members, everything, by_seed, each_counts_once=False) for name, members in groups.items()]
    rows += [
        _row(name, present, everything, by_seed, each_counts_once=True)
        for name, members in averages.items()
        if (present := [kind for kind in members if kind in kinds])
    ]
    entry = {
        "temperature": played[0].which.temperature,
        "seeds": seeds,
        "samples": samples,
        "not_judged": sum(task["status"] == NOT_JUDGED for one in played for task in one.tasks),
        "runs": [_run(seed, attempts) for seed, attempts in by_seed.items()],
        "rows": rows,
    }
    if samples > 1:
        entry["pass_at_k"] = [
            found
            for name, members in [*groups.items(), *averages.items()]
            if (found := _pass_row(name, members, everything, samples * len(seeds), name in averages)) is not None
        ]
    return entry


class _Attempts:
    """The attempts of some passes at each task; those that nobody could judge are left out."""

    def __init__(self, played: Sequence[PlayedPass]) -> None:
        self._kind: dict[str, str] = {}
        self._rows: dict[str, list[Mapping[str, Any]]] = {}
        for one in played:
            for task in one.tasks:
                self._kind[task["task_id"]] = task["kind"]
                rows = self._rows.setdefault(task["task_id"], [])
                if task["status"] != NOT_JUDGED:
                    rows.append(task)

    def kinds(self) -> list[str]:
        return sorted(set(self._kind.values()))

    def of(self, kind: str) -> Iterator[list[Mapping[str, Any]]]:
        """The scored attempts at each task of a type that has any."""
        return (rows for task_id, rows in self._rows.items() if rows and self._kind[task_id] == kind)

    def means(self, kind: str, key: str) -> list[float]:
        """Task by task, the mean over its attempts."""
        return [sum(float(row[key]) for row in rows) / len(rows) for rows in self.of(kind)]

    def mean(self, kinds: Sequence[str], key: str, *, each_counts_once: bool = False) -> float | None:
        """Over the tasks of these types (or over the types), None without a scored attempt."""
        columns = [column for kind in kinds if (column := self.means(kind, key))]
        if not columns:
            return None
        if each_counts_once:
            return sum(sum(column) / len(column) for column in columns) / len(columns)
        return sum(map(sum, columns)) / sum(map(len, columns))

    def counts(self, kind: str) -> list[tuple[int, int]]:
        """(attempts, successes) of each task."""
        return [(len(rows), sum(bool(row["success"]) for row in rows)) for rows in self.of(kind)]


def _row(
    name: str,
    kinds: Sequence[str],
    everything: _Attempts,
    by_seed: Mapping[int, _Attempts],
    *,
    each_counts_once: bool,
) -> dict[str, Any]:
    """Success over seeds, with a t interval where there are several and not all are equal; score and steps over all
    attempts."""

    def mean(attempts: _Attempts, key: str) -> float | None:
        return attempts.mean(kinds, key, each_counts_once=each_counts_once)

    rates = [rate for attempts in by_seed.values() if (rate := mean(attempts, "success")) is not None]
    interval = t_interval(rates) if len(rates) > 1 and not are_equal(rates) else None
    return {
        "kind": name,
        "n": sum(len(everything.counts(kind)) for kind in kinds),
        "success_rate": sum(rates) / len(rates) if rates else None,
        "lo": interval.low if interval else None,
        "hi": interval.high if interval else None,
        "seeds": len(rates),
        "score": mean(everything, "score"),
        "steps": mean(everything, "steps"),
    }


def _run(seed: int, attempts: _Attempts) -> dict[str, Any]:
    """All tasks with one seed: Wilson for one attempt at each task, else a bootstrap over tasks."""
    counts = [pair for kind in attempts.kinds() for pair in attempts.counts(kind)]
    run: dict[str, Any] = {"seed": seed, "n": len(counts), "success_rate": None, "lo": None, "hi": None}
    if not counts:
        return run
    if all(n == 1 for n, _ in counts):
        successes = sum(c for _, c in counts)
        low, high = wilson_interval(successes, len(counts))
        return run | {"success_rate": successes / len(counts), "lo": low, "hi": high, "interval": "wilson"}
    mean = mean_over_tasks({ALL: [c / n for n, c in counts]})
    if len(counts) < MIN_TASKS:
        return run | {"success_rate": mean.value}
    return run | {"success_rate": mean.value, "lo": mean.low, "hi": mean.high, "interval": "bootstrap"}


def _pass_row(
    name: str, kinds: Sequence[str], attempts: _Attempts, most: int, each_counts_once: bool
) -> dict[str, Any] | None:
    """pass@k over the attempts of all seeds; tasks with fewer than k scored attempts are left out of that k."""
    values = {}
    for k in ks(most):
        strata = {kind: [pass_at_k(n, c, k) for n, c in attempts.counts(kind) if n >= k] for kind in kinds}
        if not each_counts_once:
            strata = {ALL: [value for column in strata.values() for value in column]}
        if any(strata.values()):
            found = mean_over_tasks(strata, each_counts_once=each_counts_once)
            enough = min(map(len, filter(None, strata.values()))) >= MIN_TASKS
            low, high = (found.low, found.high) if enough else (None, None)
            values[str(k)] = {"value": found.value, "lo": low, "hi": high, "n": found.n}
    return {"kind": name, "k": values} if values else None
