"""The plan of a run on some hardware: what each phase takes, whether that fits, and what would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from empg_cli.config.dist import ClusterDist
from empg_cli.config.schema import TrainConfig
from empg_cli.disk import in_bytes
from empg_cli.errors import UserError
from empg_cli.planning.duration import Duration, duration
from empg_cli.planning.fitting import WayOut, fits, is_clearly_too_large, settled, ways_out
from empg_cli.planning.hardware import Hardware
from empg_cli.planning.job import BYTES, Job, beside_servers, job_of, spread_of
from empg_cli.planning.memory import Phase, host_loading, peak, phases

CONCURRENT, MICROBATCH = "rollout.max_concurrent", "trainer.tokens_per_microbatch"
"""The keys that take auto."""
KEPT_BESIDE = 2
"""Checkpoints beside the newest `keep_checkpoints`: the best one, and the one that is being written."""


class DoesNotFit(UserError):  # noqa: N818 (a sentence for the user)
    """A run needs more memory than there is. The message says in which phase, and which settings would fit."""


class UnknownShape(UserError):  # noqa: N818
    """Nobody here knows the shape of the model, so nothing can be said about what it takes."""


@dataclass(frozen=True)
class Plan:
    model: str
    """Its name in the config."""
    asked: Job
    """As it is configured, which may be auto."""
    job: Job
    """With numbers in the place of auto."""
    hardware: Hardware
    cpu_flops: float | None = None
    """Of products on this machine; None = not measured."""

    @cached_property
    def phases(self) -> list[Phase]:
        return phases(self.job)

    @property
    def peak(self) -> Phase:
        return peak(self.job)

    @property
    def fits(self) -> bool:
        return fits(self.job, self.hardware.memory) and self._host_holds

    @property
    def is_refused(self) -> bool:
        """It does not fit, and that by more than estimates are wrong."""
        return is_clearly_too_large(self.job, self.hardware.memory) or not self._host_holds

    @property
    def _host_holds(self) -> bool:
        host = self.hardware.host_memory
        return self.hardware.kind == "cpu" or host is None or host_loading(self.job) <= host

    @property
    def _halves_on_host(self) -> bool:
        """Weights that are read in float32 could be read in bfloat16."""
        return not self.job.has_adapter and self.job.param_bytes > BYTES["bfloat16"]

    @property
    def disk_bytes(self) -> int:
        """Of all checkpoints that exist at a time."""
        return (self.job.keep_checkpoints + KEPT_BESIDE) * self.job.checkpoint_bytes

    @property
    def duration(self) -> Duration | None:
        return duration(self.job, self.hardware, self.cpu_flops)

    @cached_property
    def ways_out(self) -> list[WayOut]:
        """Settings with which it fits, by the same estimate."""
        return (
            [] if self.hardware.memory is None or not self._host_holds else ways_out(self.asked, self.hardware.memory)
        )

    @property
    def settled(self) -> dict[str, int]:
        """What auto stands for, or what was given, by key."""
        assert self.job.concurrent is not None and self.job.microbatch is not None
        return {CONCURRENT: self.job.concurrent, MICROBATCH: self.job.microbatch}

    @property
    def chosen(self) -> dict[str, int]:
        """What auto stands for, where it is asked for."""
        is_auto = {CONCURRENT: self.asked.concurrent is None, MICROBATCH: self.asked.microbatch is None}
        return {key: number for key, number in self.settled.items() if is_auto[key]}

    @property
    def line(self) -> str:
        """For the log of a run."""
        has = "unknown" if self.hardware.memory is None else in_bytes(self.hardware.memory)
        return (
            f"memory: about {in_bytes(self.peak.total)} of {has} at the most, in phase {self.peak.name}; "
            f"{self.job.concurrent} episodes at once, {self.job.microbatch:,} tokens in a micro-batch"
        )

    def refuse(self) -> None:
        """
        Raises:
            DoesNotFit: it is refused.
        """
        if self.is_refused:
            raise DoesNotFit(self.reason)

    @property
    def reason(self) -> str:
        """Why it does not fit, and what would."""
        assert self.hardware.memory is not None
        if not self._host_holds:
            has = in_bytes(self.hardware.host_memory or 0)
            return (
                f"{self.model} does not load: the machine around the GPU has {has} free, and reading the weights takes "
                f"about {in_bytes(host_loading(self.job))}"
                + ("\n  model.param_dtype=bfloat16 halves that, with less exact steps" if self._halves_on_host else "")
            )
        phase = self.peak
        parts = ", ".join(f"{name} {in_bytes(size)}" for name, size in sorted(phase.items.items(), key=_largest_first))
        lines = [
            f"{self.model} does not fit into the {in_bytes(self.hardware.memory)} of {self.hardware.name}: "
            f"phase {phase.name} would take about {in_bytes(phase.total)} ({parts})"
        ]
        if self.hardware.devices > 1 and self.job.spread.is_one:
            lines.append(f"  This run uses one of the {self.hardware.devices} GPUs, dist=node all of them.")
        if self.ways_out:
            lines.append("  By the same estimate it would fit with one of these:")
            width = max(len(way.text) for way in self.ways_out)
            lines += [f"    {way.text:<{width}}  {in_bytes(peak(way.job).total)}" for way in self.ways_out]
        else:
            lines.append(
                "  No setting of a single process makes it fit: dist=node spreads weights and optimiser over several "
                "GPUs. Choose a smaller model, more memory or more GPUs."
                if self.job.spread.is_one
                else "  Choose a smaller model, more memory or more GPUs."
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, sizes in bytes."""
        took = self.duration
        return {
            "model": self.model,
            "parameters": self.job.shape.parameters,
            "trained": self.job.trained,
            "hardware": {"name": self.hardware.name, "memory": self.hardware.memory, "devices": self.hardware.devices},
            "fits": self.fits,
            "refused": self.is_refused,
            "peak": {"phase": self.peak.name, "bytes": self.peak.total},
            "phases": {phase.name: dict(phase.items) for phase in self.phases},
            "settled": self.settled,
            "disk": {"checkpoint": self.job.checkpoint_bytes, "all": self.disk_bytes},
            "update_s": None if took is None else {"rollout": took.rollout_s, "learning": took.learning_s,
                                                   "basis": took.basis},
            "ways_out": [list(way.settings) for way in self.ways_out] if self.is_refused else [],
        }  # fmt: skip


def _largest_first(item: tuple[str, int]) -> int:
    return -item[1]


def plan_of(
    cfg: TrainConfig,
    hardware: Hardware,
    *,
    given: Mapping[str, int] | None = None,
    cpu_flops: float | None = None,
    ranks: int | None = None,
) -> Plan | None:
    """None where the shape of the model is not known.

    Args:
        given: numbers that stand for auto, by key: those of the run that goes on.
        ranks: that carry out the run, each with the same share of the hardware; None = as the settings say.
    """
    spread = spread_of(cfg.dist, hardware.devices if hardware.kind == "cuda" else 0, ranks)
    job = job_of(cfg, hardware.kind, spread)
    if job is None:
        return None
    taken = replace(
        job,
        concurrent=job.concurrent or (given or {}).get(CONCURRENT),
        microbatch=job.microbatch or (given or {}).get(MICROBATCH),
    )
    own = hardware if isinstance(cfg.dist, ClusterDist) else hardware.of_one(spread.ranks)
    job, taken = (beside_servers(one, cfg.rollout, own.memory) for one in (job, taken))
    return Plan(cfg.model.name, job, settled(taken, own.memory), own, cpu_flops)
