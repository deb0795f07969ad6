"""Memory that runs out, on the device or in the machine: how it is recognised, and what a user can do about it."""

from __future__ import annotations

import contextlib
import ctypes
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import BaseModel

from empg_cli.errors import UserError
from empg_cli.planning.hardware import Hardware, this_machine

SAID_BY_TORCH = ("can't allocate memory", "not enough memory", "out of memory", "failed to allocate")
"""Of its RuntimeErrors, which have no class of their own on a CPU."""

QUOTE = '"'

PASSES = {
    "trainer.tokens_per_microbatch": "fewer: smaller passes, the same gradient (or trainer.oom=halve)",
    "model.gradient_checkpointing": "true: layers are computed twice and kept once",
    "model.dtype": "bfloat16: half of every pass",
}
SCORING = {
    "trainer.tokens_per_microbatch": "fewer: smaller passes, the same numbers (or trainer.oom=halve)",
    "model.dtype": "bfloat16: half of every pass",
    "algo.loss.kl_coef": "0: no second model",
}
ROLLOUT = {
    "rollout.max_concurrent": "fewer episodes at once; 0 is all of them, auto as many as fit",
    "rollout.max_context_tokens": "fewer: shorter episodes",
    "model.dtype": "bfloat16: half of weights and cache",
}
WARM_START = {
    "trainer.tokens_per_microbatch": "fewer: smaller passes, the same gradient",
    "model.gradient_checkpointing": "true: layers are computed twice and kept once",
    "model.dtype": "bfloat16: half of every pass",
}
LOADING = {
    "model.dtype": "bfloat16: half of the weights",
    "model.lora.rank": "16 or so: gradients and optimiser of an adapter alone",
    "algo.loss.kl_coef": "0: no second model",
}
KNOBS: Mapping[str, Mapping[str, str]] = {
    "rollout": ROLLOUT,
    "eval": ROLLOUT,
    "evaluation": ROLLOUT,
    "logprob": SCORING,
    "update": PASSES,
    "warm start": WARM_START,
}
"""Phase -> the settings that help there; in any other it is the loading that did not fit."""
ALONE_ONLY = ("model.lora.rank",)
HALVE = " (or trainer.oom=halve)"
"""Settings that several ranks cannot have."""

M_MMAP_THRESHOLD = -3
"""Of <malloc.h>: from this size on, each allocation is mapped, and goes back to the system when it is freed. Setting it
ends its growth to 32 MB."""
MAPPED_BYTES = 2**22
"""At 1 MB an update of a small SmolLM2 took 40 % more CPU time, at 4 MB none that could be seen."""
LARGE_MODEL = 20_000_000
"""Parameters from which on a pass takes seconds on a CPU, and gigabytes."""


class OutOfMemory(UserError):  # noqa: N818 (a sentence for the user)
    """The memory did not suffice, and smaller settings may."""


def hardware_of(device: torch.device) -> Hardware:
    """What a run on this device can have."""
    machine = this_machine()
    if device.type == "cpu":
        return machine
    free, _ = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    return Hardware(name, "cuda", free + torch.cuda.memory_reserved(device), host_memory=machine.memory)


def map_large_tensors(parameters: int) -> None:
    """Keep large tensors out of the heap of the C library, where that is glibc; see `give_back_heap`.

    Args:
        parameters: of the model.
    """
    if parameters >= LARGE_MODEL:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def give_back_heap(parameters: int) -> None:
    """Return to the system what freed tensors have left in the heap of the C library, where that is glibc.

    It keeps them, and gradients and the optimiser's state then lie between the holes, which aligned tensors of the same
    size do not fit into (glibc before 2.38): the second update of a SmolLM2-135M took 5.6 GB beside weights and
    optimiser where 2.8 GB were in use.

    Args:
        parameters: of the model; below `LARGE_MODEL` nothing is done, since little is left and time would be.
    """
    if parameters >= LARGE_MODEL:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Of the machine or of a CUDA device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID_BY_TORCH)


def release() -> None:
    """Give back to the device what a failed pass has left; call it when nothing refers to that pass any more."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(
    error: BaseException, phase: str, cfg: BaseModel, again: str, *, may_change: Callable[[str], bool], who: str = ""
) -> OutOfMemory:
    """What is said to the user: where it happened, what helps, with the values now.

    Args:
        phase: as in `timing_s/`.
        again: the command that goes on, to which a setting can be added.
        may_change: whether a run that goes on may have another value of a key.
        who: has met with it, where that is not the process that the user sees.
    """
    reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
    values = cfg.model_dump()
    is_alone = _lookup(values, "dist.launch") in (None, "none")
    lines = []
    for key, what in KNOBS.get(phase, LOADING).items():
        if not is_alone:
            what = what.replace(HALVE, "")
        if (value := _lookup(values, key)) is not None and (is_alone or key not in ALONE_ONLY):
            when = "" if may_change(key) else "; for a new run"
            lines.append(f"  {key}={json.dumps(value).strip(QUOTE)}  ({what}{when})")
    where = f"on {who} in phase {phase}" if who else f"in phase {phase}"
    return OutOfMemory(
        "\n".join([f"out of memory {where}: {reason}", "What helps, with the values now:", *lines,
                   f"To go on with another value:  {again} KEY=VALUE"])
    )  # fmt: skip


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values
