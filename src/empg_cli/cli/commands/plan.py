"""`empg plan`: what a run would take, of memory, disk and time, on this machine or on another one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from empg_cli.config.job import load_job
from empg_cli.config.plan import PlanConfig
from empg_cli.config.schema import TrainConfig
from empg_cli.disk import free_bytes, in_bytes
from empg_cli.observe.terminal import write_line
from empg_cli.planning.hardware import Hardware, named
from empg_cli.planning.plan import KEPT_BESIDE, Plan, UnknownShape, plan_of
from empg_cli.reports.tables import NOTHING, Cell, Table, print_table

UNITS = ((1, "s", 120), (60, "min", 120 * 60), (3600, "h", float("inf")))


def run(overrides: Sequence[str], *, as_json: bool) -> None:
    """Print the plan.

    Raises:
        UnknownShape: the model is none that is known here.
        DoesNotFit: after the plan is printed.
    """
    cfg = load_job("plan", overrides, PlanConfig)
    hardware, flops = named(cfg.plan.hardware), None
    is_here = hardware is None
    if hardware is None:
        hardware, flops = found_here(cfg)
    plan = plan_of(cfg, hardware, cpu_flops=flops)
    if plan is None:
        raise UnknownShape(
            f"nobody here knows the shape of model.path={cfg.model.path}: give a folder with its config.json, or a hub "
            "id that this machine has loaded before; models that are built unlike Llama cannot be planned, nor "
            "adapters on other layers (model.lora.targets)"
        )
    free = free_bytes(Path(cfg.run_dir)) if is_here else None
    if as_json:
        print(json.dumps(plan.as_dict() | {"disk_free": free}))
    else:
        for table in tables(plan, free):
            print_table(table, sys.stdout)
            write_line(sys.stdout, "")
    plan.refuse()


def found_here(cfg: TrainConfig) -> tuple[Hardware, float | None]:
    """The hardware that a run would find here, and the speed of a CPU's products."""
    from empg_cli.cli.threads import measured_flops  # brings torch: seconds
    from empg_cli.model.loading import pick_device
    from empg_cli.model.memory import hardware_of

    hardware = hardware_of(pick_device(cfg.trainer.device))
    return hardware, measured_flops(cfg.trainer.threads) if hardware.kind == "cpu" else None


def tables(plan: Plan, free: int | None) -> list[Table]:
    """
    Args:
        free: bytes on the disk of the run folder; None = not known.
    """
    return [_memory(plan), _rest(plan, free)]


def _memory(plan: Plan) -> Table:
    items = list(dict.fromkeys(name for phase in plan.phases for name in phase.items))
    rows = [
        tuple(Cell(text) for text in (item, *(_size(phase.items.get(item)) for phase in plan.phases))) for item in items
    ]
    most = plan.peak.name
    totals = tuple(Cell(in_bytes(phase.total), bold=phase.name == most) for phase in plan.phases)
    has = "not known" if plan.hardware.memory is None else in_bytes(plan.hardware.memory)
    verdict = "fits" if plan.fits else "does not fit" if plan.is_refused else "may not fit: an estimate is 15 % off"
    return Table(
        title=f"{plan.model} on {plan.hardware.name}: {has} of memory, {in_bytes(plan.peak.total)} needed; {verdict}",
        header=("memory", *(phase.name for phase in plan.phases)),
        rows=(*rows, (Cell("together"), *totals)),
        notes=tuple(_about_memory(plan)),
    )


def _about_memory(plan: Plan) -> list[str]:
    job = plan.job
    notes = [
        f"{job.shape.parameters / 1e6:,.1f} M parameters, {job.trained / 1e6:,.1f} M trained; {job.concurrent} of "
        f"{job.episodes} episodes at once (of an update or an evaluation, whichever has more), each of up to "
        f"{job.context:,} tokens; {job.microbatch:,} tokens in a micro-batch"
    ]
    if not job.spread.is_one:
        notes.append(f"one of {job.spread.ranks} processes (dist); {job.spread.shard} hold one copy of what is trained")
    elif plan.hardware.devices > 1:
        notes.append(f"this run uses one of the {plan.hardware.devices} GPUs, dist=node all of them")
    return notes


def _rest(plan: Plan, free: int | None) -> Table:
    job, took = plan.job, plan.duration
    rows = [("a checkpoint on the disk", in_bytes(job.checkpoint_bytes)),
            (f"{job.keep_checkpoints + KEPT_BESIDE} checkpoints", in_bytes(plan.disk_bytes))]  # fmt: skip
    if free is not None:
        rows.append(("free on that disk", in_bytes(free)))
    newest = "newest" if job.keep_checkpoints == 1 else f"newest {job.keep_checkpoints}"
    notes = [f"kept: the {newest}, the best, and one that is being written"]
    if took is not None:
        rows += [("playing for an update, about", duration_text(took.rollout_s)),
                 ("scoring and learning, about", duration_text(took.learning_s))]  # fmt: skip
        notes.append(f"times: an estimate within a factor of two or so, for episodes of full length, from {took.basis}")
    return Table("Disk and time", ("", "about"), tuple((Cell(name), Cell(text)) for name, text in rows), tuple(notes))


def _size(size: int | None) -> str:
    return NOTHING if size is None else in_bytes(size)


def duration_text(seconds: float) -> str:
    divisor, unit = next((divisor, unit) for divisor, unit, most in UNITS if seconds < most)
    return f"{seconds / divisor:.3g} {unit}"
