"""How a run is filed among others, by W&B and by sinks like it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunIdentity:
    name: str
    group: str
    """Runs that differ only in their seed share it."""
    tags: tuple[str, ...]
    job_type: str
    """train, eval or ablate."""

    @classmethod
    def of_seed(cls, group: str, seed: int, *, tags: Iterable[str] = (), job_type: str = "train") -> RunIdentity:
        """The name is the group and the seed: `alfworld-empg` becomes `alfworld-empg-s0`."""
        return cls(name=f"{group}-s{seed}", group=group, tags=tuple(tags), job_type=job_type)
