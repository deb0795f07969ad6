"""The key numbers of a report, each with its interval where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from empg_cli.observe.terminal import duration
from empg_cli.reports.curves import ENTROPY, KL_LOSS, REWARD, SCORE, SUCCESS, Curve, curves_of, wilson_of
from empg_cli.runs.reading import RunFolder
from empg_cli.stats.intervals import no_spread


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    value: str
    note: str
    share: tuple[float, float, float] | None = None
    """Low, value and high in 0..1, drawn as an interval on a common scale."""
    number: int | None = None
    """Of the configuration, for its colour."""


def tiles_of(runs: Sequence[RunFolder]) -> list[Tile]:
    """Of a single run its last values; of several the success of each configuration."""
    return _of_run(runs[0]) if len(runs) == 1 else [_success(curve) for curve in curves_of(runs, SUCCESS.metric)]


def _success(curve: Curve) -> Tile:
    value, update = curve.mean[-1], f"after update {curve.updates[-1]}"
    interval = curve.interval_at(-1)
    if interval is None:
        without = no_spread(curve.seeds) if curve.is_equal_at(-1) else "1 seed"
        return Tile(curve.label, f"{value:.1%}", f"{without} · {update}", number=curve.number)
    low, high = max(0.0, interval[0]), min(1.0, interval[1])
    kind = f"95 % t, {curve.seeds} seeds" if curve.seeds > 1 else "95 % Wilson, 1 seed"
    note = f"[{low:.1%}, {high:.1%}] {kind} · {update}"
    return Tile(curve.label, f"{value:.1%}", note, (low, value, high), curve.number)


def _of_run(run: RunFolder) -> list[Tile]:
    tiles = []
    for name, metric in (("success rate", SUCCESS.metric), ("score", SCORE.metric)):
        last = run.last(metric)
        if last is None or (metric == SCORE.metric and last == run.last(SUCCESS.metric)):
            continue
        update, value = last
        row = run.rows[update]
        n = row.get("eval/n") or 0
        if metric == SUCCESS.metric:
            told, share = f"n={n:.0f}", None
            if bounds := wilson_of(row, metric):
                told = f"[{bounds[0]:.1%}, {bounds[1]:.1%}] 95 % Wilson, {told}"
                share = (bounds[0], value, bounds[1])
            note = f"{told} · {_since(run, metric, update, percent=True)}"
            tiles.append(Tile(name, f"{value:.1%}", note, share))
        else:
            tiles.append(Tile(name, f"{value:.3f}", f"n={n:.0f} · {_since(run, metric, update)}"))
    for name, panel in (("reward", REWARD), ("KL loss", KL_LOSS), ("entropy", ENTROPY)):
        if last := run.last(panel.metric):
            update, value = last
            unit = "" if panel is REWARD else " nats"
            tiles.append(Tile(name, f"{value:.3g}{unit}", _since(run, panel.metric, update)))
    tiles.append(Tile("updates", f"{run.updates} of {run.planned_updates}", _spent(run)))
    return tiles


def _since(run: RunFolder, metric: str, update: int, *, percent: bool = False) -> str:
    first = next((u for u in sorted(run.rows) if run.rows[u].get(metric) is not None), update)
    if first == update:
        return f"after update {update}"
    value = run.rows[first][metric] or 0.0
    return f"after update {update}; {f'{value:.1%}' if percent else f'{value:.3g}'} after {first}"


def _spent(run: RunFolder) -> str:
    parts = []
    if episodes := run.last("env/episodes"):
        parts.append(f"{episodes[1]:,.0f} episodes")
    if tokens := run.last("env/tokens"):
        parts.append(f"{tokens[1]:,.0f} tokens")
    seconds = sum(row.get("perf/time_per_step") or 0.0 for row in run.rows.values())
    return " · ".join([*parts, *([duration(seconds)] if seconds else [])])
