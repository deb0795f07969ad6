"""A machine fitted to the phases of one process, and what the model then says of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from scripts.scale.case import Case
from scripts.scale.cases import Table
from scripts.scale.costs import learning_of
from scripts.scale.hardware import Machine
from scripts.scale.measured import PHASES, Measured
from scripts.scale.simulation import simulate
from scripts.scale.workload import draw_group, rows_of

UNIT = 1e9
"""FLOP/s that shares of a fitted machine are of."""
HALVINGS = 50


@dataclass(frozen=True, slots=True)
class Link:
    """Between processes of one machine, which one process cannot tell. As two gloo processes on two busy cores had it:
    0.15 GB/s in an all-gather of 60 MB, 0.5 in an all-reduce, 0.5 ms for one of a few bytes."""

    bytes_per_s: float = 2.5e8
    collective_s: float = 5e-4
    cores: int = 2


def fitted(measured: Measured, link: Link) -> Machine:
    """Shares from the passes over whole rows; what playing takes beyond the products of its tokens is a pass's own."""
    machine = Machine(
        flops=UNIT,
        scoring_share=1.0,
        learning_share=1.0,
        reading_share=1.0,
        bytes_per_s=math.inf,
        memory=1e15,
        pass_s=0.0,
        tensor_parallel_s=0.0,
        node=2**20,
        node_bytes_per_s=link.bytes_per_s,
        network_bytes_per_s=link.bytes_per_s,
        link_share=1.0,
        collective_s=link.collective_s,
        overlap=0.0,
        sync_s=0.0,
        environment_s=0.0,
        sequences=2**20,
        state_bytes=16.0,
        weight_bytes=4,
        gather_bytes=4,
        gradient_bytes=4,
        microbatch=measured.microbatch,
    )
    took = learning_of(_rows(measured), measured.shape, machine, 1, recompute=measured.recomputes)
    learning = took.learning / measured.seconds["update"]
    scoring = took.scoring / measured.seconds["logprob"] if measured.seconds["logprob"] else learning
    machine = replace(machine, scoring_share=scoring, learning_share=learning, reading_share=scoring)
    whole = measured.seconds["rollout"]
    if _rollout_s(measured, machine) < whole:
        return replace(
            machine, pass_s=_solved(lambda value: _rollout_s(measured, replace(machine, pass_s=value)), whole)
        )
    # products alone would take longer: sampled tokens cost less than scored ones
    slower = _solved(lambda value: 1 / _rollout_s(measured, replace(machine, reading_share=value)), 1 / whole)
    return replace(machine, reading_share=slower)


def _solved(rising: Callable[[float], float], wanted: float) -> float:
    low, high = 0.0, 1.0
    while rising(high) < wanted:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return high


def _case(measured: Measured, machine: Machine, ranks: int) -> Case:
    return Case(
        measured.shape,
        machine,
        measured.lengths,
        measured.context,
        ranks,
        tasks=measured.tasks,
        group_size=measured.group_size,
        updates=1,
        recompute=measured.recomputes,
    )


def _rollout_s(measured: Measured, machine: Machine) -> float:
    return simulate(_case(measured, machine, 1)).playing_s


def _rows(measured: Measured) -> list[tuple[int, int]]:
    groups = (
        draw_group(measured.lengths, measured.group_size, number=number, version=0, seed=0)
        for number in range(measured.tasks)
    )
    return [row for group in groups for episode in group.episodes for row in rows_of(episode, measured.context)]


def predicted(measured: Measured, machine: Machine, ranks: int, cores: int) -> dict[str, float]:
    """Seconds of the phases. More processes than cores share them."""
    slowed = max(1.0, ranks / cores)
    machine = replace(
        machine,
        flops=machine.flops / slowed,
        pass_s=machine.pass_s * slowed,
        node_bytes_per_s=machine.node_bytes_per_s / slowed,
        collective_s=machine.collective_s * slowed,
    )
    result = simulate(_case(measured, machine, ranks))
    took = learning_of(_rows(measured), measured.shape, machine, ranks, recompute=measured.recomputes)
    scoring = took.scoring / (took.scoring + took.learning)
    logprob = took.scoring + scoring * took.imbalance + took.communication / 4  # one gather of three and a reduction
    has_scoring = measured.seconds["logprob"] > 0
    return {
        "rollout": result.playing_s + result.parts["sync"],
        "logprob": logprob if has_scoring else 0.0,
        "update": took.total - logprob,
    }


def constants_table(measured: Measured, machine: Machine, link: Link) -> Table:
    rows = _rows(measured)
    tokens = sum(row[0] for row in rows)
    moved = 4 * measured.shape.parameters
    return Table(
        "Fitted to one process",
        ["constant", "value"],
        [
            ["scoring, s per token", f"{measured.seconds['logprob'] / tokens:.3g}"],
            ["learning, s per token", f"{measured.seconds['update'] / tokens:.3g}"],
            ["decoding, s per pass", f"{machine.pass_s:.3g}"],
            ["products of playing, of those of scoring", f"{machine.reading_share / machine.scoring_share:.3g}"],
            ["between ranks (given), s per copy of all weights", f"{moved / link.bytes_per_s:.3g}"],
            ["before a collective (given), s", f"{link.collective_s:.3g}"],
            ["cores", str(link.cores)],
        ],
    )


def check_table(measured: Mapping[int, Measured], machine: Machine, link: Link, *, more: tuple[int, ...] = ()) -> Table:
    """Predicted beside measured. One process was fitted, so its error says only that the fit has worked."""
    rows = []
    for ranks in sorted({*measured, *more}):
        told = predicted(measured[1], machine, ranks, link.cores)
        real = measured[ranks].seconds if ranks in measured else None
        for phase in PHASES:
            rows.append(_row(f"{ranks}, {phase}", told[phase], real[phase] if real else None))
        rows.append(_row(f"{ranks}, all three", sum(told.values()), sum(real.values()) if real else None))
    return Table("Model and run, seconds of an update", ["processes, phase", "model", "run", "error"], rows)


def _row(label: str, told: float, real: float | None) -> list[str]:
    if not real:
        return [label, f"{told:.3g}", "-", "-"]
    return [label, f"{told:.3g}", f"{real:.3g}", f"{told / real - 1:+.0%}"]
