"""What passes cost: decoding and prefill of an engine, scoring and learning of all ranks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from empg_cli.planning.duration import head_flops, token_flops
from empg_cli.planning.shapes import Shape
from scripts.scale.hardware import Machine, gather_s

FILLED = 0.9
"""Share of the memory that may be in use."""


@dataclass(frozen=True, slots=True)
class Line:
    """a + b * i, of pass i."""

    a: float
    b: float

    def total(self, first: int, end: int) -> float:
        """Over passes first..end - 1."""
        count = end - first
        return count * self.a + self.b * (end * (end - 1) - first * (first - 1)) / 2


def sum_of_larger(one: Line, other: Line, count: int) -> float:
    """Of max(one, other), over passes 0..count - 1."""
    gap, slope = one.a - other.a, one.b - other.b
    starts_larger, ends_larger = gap >= 0, gap + slope * (count - 1) >= 0
    if starts_larger == ends_larger:
        return (one if starts_larger else other).total(0, count)
    first, then = (one, other) if starts_larger else (other, one)
    crossing = min(count, max(0, math.ceil(-gap / slope)))
    return first.total(0, crossing) + then.total(crossing, count)


class EngineCosts:
    """Of one engine: a copy of the weights on `size` GPUs."""

    def __init__(self, shape: Shape, machine: Machine, size: int, *, taken: float = 0.0) -> None:
        """
        Args:
            taken: bytes of each GPU that learning keeps while episodes are played.
        """
        self._reading = machine.reading_share * machine.flops * size
        self._memory = machine.bytes_per_s * size
        self._pass_s = machine.pass_s + (machine.tensor_parallel_s if size > 1 else 0.0)
        self._layers = token_flops(shape, 0)
        self._token = self._layers + head_flops(shape)
        self._column = token_flops(shape, 1) - self._layers
        self._weights = machine.weight_bytes * shape.parameters
        self.kv_bytes = 2 * shape.layers * shape.key_width * machine.weight_bytes
        self.room = max(0.0, (FILLED * machine.memory - taken) * size - self._weights)
        """Bytes for keys and values."""

    def decode_s(self, sequences: int, columns: int, passes: int) -> float:
        """Of so many passes, each of which decodes one token for each sequence and so adds as many columns."""
        products = Line(
            (sequences * self._token + columns * self._column) / self._reading,
            sequences * self._column / self._reading,
        )
        traffic = Line(
            (self._weights + columns * self.kv_bytes) / self._memory, sequences * self.kv_bytes / self._memory
        )
        return sum_of_larger(products, traffic, passes) + passes * self._pass_s

    def prefill_s(self, prompts: Sequence[tuple[int, int]]) -> float:
        """
        Args:
            prompts: (new tokens, all tokens) of each.
        """
        flops = sum(new * (self._layers + self._column * (whole - new / 2)) for new, whole in prompts)
        return flops / self._reading


@dataclass(frozen=True, slots=True)
class Learning:
    """Seconds of an update on the learning ranks."""

    scoring: float
    learning: float
    """Both: of the mean rank."""
    imbalance: float
    """The busiest rank's beyond that."""
    communication: float
    """What products do not hide."""
    flops: float
    """Of all ranks together."""

    @property
    def total(self) -> float:
        return self.scoring + self.learning + self.imbalance + self.communication


def shard_size(shape: Shape, machine: Machine, ranks: int) -> int | None:
    """Ranks that hold one copy together: as few nodes as hold it in half of their memory; None: it does not fit."""
    state = machine.state_bytes * shape.parameters
    if ranks <= machine.node:
        return ranks if state <= FILLED * machine.memory * ranks else None
    size = machine.node
    while size < ranks and state > 0.5 * machine.memory * size:
        size *= 2
    size = min(size, ranks)
    return size if state <= FILLED * machine.memory * size else None


def learning_of(
    rows: Sequence[tuple[int, int]], shape: Shape, machine: Machine, ranks: int, *, recompute: bool = True
) -> Learning:
    """Scoring, then one optimiser step over all rows, which are never split.

    Args:
        rows: (tokens, sampled tokens).
        recompute: gradient checkpointing: one pass forward more.
    """
    body = [tokens * token_flops(shape, tokens / 2) for tokens, _ in rows]
    head = [sampled * head_flops(shape) for _, sampled in rows]
    forward = sum(body) + sum(head)
    backward = (3 + recompute) * sum(body) + 4 * sum(head)
    loads, most_tokens = _spread([one + other for one, other in zip(body, head, strict=True)], rows, ranks)
    excess = max(loads) * ranks / sum(loads) - 1
    shard = shard_size(shape, machine, ranks) or ranks
    # float32 weights, gradient and two moments are read, three of them written, and copies
    step_s = 30 * shape.parameters / shard / machine.bytes_per_s
    scoring = forward / ranks / (machine.scoring_share * machine.flops)
    learning = backward / ranks / (machine.learning_share * machine.flops)
    passes = max(1, math.ceil(most_tokens / machine.microbatch))
    gathering = gather_s(machine, machine.gather_bytes * shape.parameters, shard)
    reducing = gather_s(machine, machine.gradient_bytes * shape.parameters, shard)
    latency = machine.collective_s * shape.layers if shard > 1 else 0.0
    moved = passes * (3 * (gathering + latency) + reducing + latency)
    copies = ranks // shard
    if copies > 1:  # gradients of a shard, summed over its twins: each has one adapter
        twins = 2 * machine.gradient_bytes * shape.parameters / shard * (copies - 1) / copies
        moved += twins / (machine.link_share * machine.network_bytes_per_s)
    hidden = min(machine.overlap * moved, scoring + learning)
    return Learning(scoring, learning + step_s, (scoring + learning) * excess, moved - hidden, forward + backward)


def _spread(costs: Sequence[float], rows: Sequence[tuple[int, int]], ranks: int) -> tuple[list[float], int]:
    """Load of each rank, and the most tokens of one: the largest row first, to the rank that has least."""
    least = [(0.0, rank, 0) for rank in range(ranks)]
    for cost, (tokens, _) in sorted(zip(costs, rows, strict=True), reverse=True):
        load, rank, held = least[0]
        heapq.heapreplace(least, (load + cost, rank, held + tokens))
    return [load for load, _, _ in least], max(held for _, _, held in least)
