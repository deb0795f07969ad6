"""The machine of the model: every constant in one table, with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, fields

from empg_cli.planning.duration import LEARNING_SHARE, MEMORY_SHARE, READING_SHARE, STEP_S
from empg_cli.planning.hardware import CARDS

H100_CARD = next(card for _, card in CARDS if card.name == "H100 SXM")


@dataclass(frozen=True, slots=True)
class Machine:
    """Of one GPU, or one process of a CPU."""

    flops: float
    """Dense bfloat16 products at their peak, FLOP/s."""
    scoring_share: float
    """Of that peak, in passes forward alone."""
    learning_share: float
    reading_share: float
    """In prefill, and in decoding where products bound it."""
    bytes_per_s: float
    """Of memory, as it is reached."""
    memory: float
    """Bytes."""
    pass_s: float
    """Of a decoding pass, whatever it computes."""
    tensor_parallel_s: float
    """More of a pass over several GPUs."""
    node: int
    """GPUs of a node."""
    node_bytes_per_s: float
    """Each GPU to its node's others."""
    network_bytes_per_s: float
    """Each GPU to other nodes."""
    link_share: float
    """Of both speeds, as collectives reach them."""
    collective_s: float
    """Before a collective moves its first byte."""
    overlap: float
    """Share of communication that hides behind products."""
    sync_s: float
    """Of a weight sync beside the bytes: pause, sleep and wake, probe."""
    environment_s: float
    """From the end of an answer to the next request."""
    sequences: int
    """At once in an engine."""
    state_bytes: float
    """Of a parameter while it is trained, to be spread over ranks."""
    weight_bytes: int = 2
    gather_bytes: int = 2
    gradient_bytes: int = 4
    microbatch: int = 32_768
    """Tokens."""


SOURCES = {
    "flops": "data sheet (empg_cli.planning.hardware)",
    "scoring_share": "assumed, as learning",
    "learning_share": "assumed, as empg_cli.planning.duration; 0.3 below 3 B parameters",
    "reading_share": "assumed, as empg_cli.planning.duration",
    "bytes_per_s": "data sheet, 65 % of it (assumed)",
    "memory": "data sheet",
    "pass_s": "assumed, as empg_cli.planning.duration",
    "tensor_parallel_s": "assumed",
    "node": "DGX H100",
    "node_bytes_per_s": "data sheet of NVLink 4, one direction",
    "network_bytes_per_s": "one 400 Gbit/s adapter a GPU",
    "link_share": "assumed",
    "collective_s": "assumed",
    "overlap": "assumed",
    "sync_s": "assumed",
    "environment_s": "assumed; the worlds here need less than 1 ms",
    "sequences": "assumed",
    "state_bytes": "float32 weights, gradients and two moments, bfloat16 copies",
    "weight_bytes": "bfloat16",
    "gather_bytes": "bfloat16",
    "gradient_bytes": "float32",
    "microbatch": "trainer.tokens_per_microbatch=auto on a GPU",
}
"""Field of `Machine` -> where the number of `H100` comes from."""

H100 = Machine(
    flops=H100_CARD.flops,
    scoring_share=LEARNING_SHARE["large"],
    learning_share=LEARNING_SHARE["large"],
    reading_share=READING_SHARE,
    bytes_per_s=MEMORY_SHARE * H100_CARD.bytes_per_s,
    memory=80e9,
    pass_s=STEP_S,
    tensor_parallel_s=0.003,
    node=8,
    node_bytes_per_s=450e9,
    network_bytes_per_s=50e9,
    link_share=0.7,
    collective_s=30e-6,
    overlap=0.7,
    sync_s=1.0,
    environment_s=0.02,
    sequences=256,
    state_bytes=18.0,
)


def constants(machine: Machine) -> list[list[object]]:
    """Rows of the table."""
    return [[field.name, f"{getattr(machine, field.name):.4g}", SOURCES[field.name]] for field in fields(machine)]


def gather_s(machine: Machine, size: float, ranks: int) -> float:
    """Of an all-gather or a reduce-scatter of `size` bytes. All adapters of a node carry what crosses its border."""
    if ranks <= 1:
        return 0.0
    inside = size * (ranks - 1) / ranks / (machine.link_share * machine.node_bytes_per_s)
    nodes = -(-ranks // machine.node)
    border = machine.link_share * machine.network_bytes_per_s * min(ranks, machine.node)
    return max(inside, size * (nodes - 1) / nodes / border)


def broadcast_s(machine: Machine, size: float) -> float:
    """To any number of receivers, in a chain of small pieces: one adapter's time."""
    return size / (machine.link_share * machine.network_bytes_per_s)
