"""How many processes carry out a run, and what happens when one of them is lost."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from empg_cli.config.node import Node


class NoDist(Node):
    """The process of the command itself."""

    launch: Literal["none"]


class NodeDist(Node):
    """Several processes of this machine, started by the command (docs/scaling.md)."""

    launch: Literal["node"]
    processes: PositiveInt | None
    """Ranks; each holds a part of the weights, plays a part of the groups and learns from a part of the batch. null =
    one a GPU; without GPUs it must be given."""
    shard: PositiveInt | None
    """Ranks that hold one copy of weights, gradients and optimiser state together; null = all of them. Must divide
    their number."""
    reshard: bool
    """true: weights and gradients of a layer are whole only while it is computed: less memory, more traffic; false:
    whole through all micro-batches of an optimiser step."""
    restarts: NonNegativeInt
    """How often the run goes on from its last checkpoint after a rank has died or hung; 0 = never."""
    timeout_s: PositiveFloat
    """Seconds of silence of a rank, or of waiting for another, after which that one counts as hung."""

    @model_validator(mode="after")
    def shards_are_equal(self) -> NodeDist:
        if self.processes and self.shard and self.processes % self.shard:
            raise ValueError(f"shard ({self.shard}) must divide dist.processes ({self.processes})")
        return self


class ClusterDist(Node):
    """Processes of one or more machines that somebody else starts, srun or torchrun, each with the same command."""

    launch: Literal["cluster"]
    shard: PositiveInt | None
    """Ranks that hold one copy of weights, gradients and optimiser state together; null = all of them. Must divide
    their number."""
    reshard: bool
    """true: weights and gradients of a layer are whole only while it is computed: less memory, more traffic; false:
    whole through all micro-batches of an optimiser step."""
    timeout_s: PositiveFloat
    """Seconds that a rank waits for another at the start and at a common point; then it gives up. Longer than what the
    first does alone, such as a warm start."""


Dist = NoDist | NodeDist | ClusterDist
