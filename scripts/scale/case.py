"""What is simulated, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field

from empg_cli.planning.shapes import Shape
from scripts.scale.costs import shard_size
from scripts.scale.hardware import Machine, broadcast_s, gather_s
from scripts.scale.workload import Context, Lengths


@dataclass(frozen=True, slots=True)
class Case:
    shape: Shape
    machine: Machine
    lengths: Lengths
    context: Context
    gpus: int
    tensor_parallel: int = 1
    engine_gpus: int | None = None
    """None: colocated, all GPUs play and then learn."""
    staleness: int = 0
    """`rollout.max_staleness`."""
    tasks: int = 16
    group_size: int = 8
    updates: int = 2
    warm_up: int = 0
    """Updates at the beginning that do not count."""
    seed: int = 0
    recompute: bool = True

    @property
    def is_colocated(self) -> bool:
        return self.engine_gpus is None

    @property
    def playing_gpus(self) -> int:
        return self.gpus if self.engine_gpus is None else self.engine_gpus

    @property
    def learning_gpus(self) -> int:
        return self.gpus if self.engine_gpus is None else self.gpus - self.engine_gpus


PARTS = ("decode", "prefill", "again", "score", "learn", "imbalance", "comm", "sync", "idle")
"""What a GPU does; again: prefill of what new weights or a full cache have made void."""


@dataclass(slots=True)
class Totals:
    """Since the beginning."""

    time: float = 0.0
    decode: float = 0.0
    prefill: float = 0.0
    again: float = 0.0
    score: float = 0.0
    learn: float = 0.0
    imbalance: float = 0.0
    comm: float = 0.0
    sync: float = 0.0
    playing: float = 0.0
    """Wall seconds in which the learners wait for groups."""
    flops: float = 0.0
    begun: int = 0
    trained: int = 0
    dropped: int = 0
    staleness: int = 0
    """Summed over trained groups."""
    turns: int = 0
    """Of their episodes."""


@dataclass(frozen=True, slots=True)
class Result:
    update_s: float
    parts: dict[str, float]
    """Seconds of an update that the mean GPU spends, by `PARTS`; their sum is `update_s`."""
    playing_s: float
    busy: float
    """Share of GPU time that computes something."""
    mfu: float
    """Of learning: its FLOPs / what all GPUs could compute in the whole time."""
    dropped: float
    """Groups that grew too old / groups trained or dropped."""
    staleness: float
    """Mean of the trained groups, in updates."""
    turns: float
    """Mean of trained episodes: those that end late are rarer among what is trained where groups are dropped."""
    totals: Totals = field(repr=False)


def kept_bytes(case: Case) -> float:
    """Of each GPU that plays: float32 weights and two moments of its share, where the same GPUs learn."""
    if not case.is_colocated:
        return 0.0
    shard = shard_size(case.shape, case.machine, case.learning_gpus) or case.learning_gpus
    return 12 * case.shape.parameters / shard


def sync_s(case: Case) -> float:
    size = case.machine.weight_bytes * case.shape.parameters
    if case.is_colocated:
        return case.machine.sync_s + gather_s(case.machine, size, case.learning_gpus)
    return case.machine.sync_s + broadcast_s(case.machine, size)
