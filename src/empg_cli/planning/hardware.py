"""What a run computes with: how much memory that has, and how fast it is by its data sheet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from empg_cli.config.plan import NAMED

GB = 10**9


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU by its data sheet: dense bfloat16 products, and how fast its memory is read."""

    name: str
    flops: float
    bytes_per_s: float


CARDS: tuple[tuple[int, Card], ...] = (
    (24, Card("RTX 4090", 165e12, 1.01e12)),
    (48, Card("L40S", 362e12, 0.86e12)),
    (80, Card("H100 SXM", 989e12, 3.35e12)),
    (141, Card("H200", 989e12, 4.8e12)),
    (192, Card("B200", 2250e12, 8.0e12)),
)
"""Gigabytes -> the card that is meant by them, in ascending order."""
MORE = 1.08
"""A card has up to so many times the gigabytes of its name, which counts them in powers of two."""
OTHER_CARDS = (
    Card("RTX 3090", 71e12, 0.94e12),
    Card("A100", 312e12, 2.04e12),
    Card("H100", 989e12, 3.35e12),
)
"""Found by their names alone, those of `CARDS` too."""


@dataclass(frozen=True, slots=True)
class Hardware:
    name: str
    kind: str
    """cpu or cuda."""
    memory: int | None
    """Bytes that a run can have on it, this process's own among them; None = not known."""
    devices: int = 1
    host_memory: int | None = None
    """Bytes of the machine around a GPU; None = not known."""

    def of_one(self, ranks: int) -> Hardware:
        """What one of so many processes of the machine can have: each its GPU, and an equal part of what they share."""
        memory = self.memory if self.kind == "cuda" or self.memory is None else self.memory // ranks
        host = None if self.host_memory is None else self.host_memory // ranks
        return replace(self, memory=memory, host_memory=host)

    @property
    def card(self) -> Card:
        """Of GPUs: the one that the name says; else the smallest one that has as much memory, or the largest."""
        assert self.kind == "cuda" and self.memory is not None
        by_size = [card for _, card in CARDS]
        named = next((card for card in (*by_size, *OTHER_CARDS) if re.search(rf"\b{card.name}\b", self.name)), None)
        return named or next((card for size, card in CARDS if self.memory <= MORE * size * GB), by_size[-1])


def named(text: str) -> Hardware | None:
    """The hardware that `plan.hardware` names; None for `here`."""
    found = NAMED.match(text)
    assert found, "checked by the schema"
    count, gpu, ram = found.groups()
    if ram is not None:
        return Hardware(f"a machine with {ram} GB", "cpu", int(ram) * GB)
    if gpu is None:
        return None
    return Hardware(f"{count} x {gpu} GB", "cuda", int(gpu) * GB, devices=int(count))


def this_machine() -> Hardware:
    """Without a GPU: what the system and the container's limit leave to this process."""
    free = available_memory()
    return Hardware("this machine", "cpu", None if free is None else free + resident_memory())


def available_memory(
    meminfo: Path = Path("/proc/meminfo"),
    cgroup: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
) -> int | None:
    """Bytes that could be had now without swapping; None where the system does not say.

    Args:
        own: which groups this process is in: a batch system limits a job in one far below the root.
    """
    limits = []
    if (found := _meminfo(meminfo, "MemAvailable")) is not None:
        limits.append(found)
    limits += [limit - used for limit, used in _cgroup(cgroup, own)]
    return max(0, min(limits)) if limits else None


def resident_memory(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process has in memory; 0 where the system does not say."""
    return _meminfo(status, "VmRSS") or 0


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _meminfo(file: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _cgroup(root: Path, own: Path) -> list[tuple[int, int]]:
    """Limit and use of the container, of the group of this process and of all groups around that, of either version;
    empty without a limit."""
    found = []
    for folder, most, used in _groups(root, own):
        try:
            limit, now = (folder / most).read_text().strip(), (folder / used).read_text().strip()
            cache = re.search(r"^(?:total_)?inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        except OSError:
            continue
        if limit.isdecimal() and now.isdecimal() and int(limit) < 2**60:  # the first version writes 2**63 for none
            found.append((int(limit), int(now) - (int(cache[1]) if cache else 0)))
    return found


def _groups(root: Path, own: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders of groups, from the root to that of this process, and the names of their limit and their use."""
    second, first = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    yield root, *second
    yield root / "memory", *first
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/slice/job" of the second version, "4:memory:/slice/job" of the first
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (root / "memory", first) if controllers else (root, second)
        inside = Path(path.lstrip("/"))
        for part in (*reversed(inside.parents), inside):
            if part != Path() and ".." not in part.parts:
                yield top / part, *names
