"""Memory that runs out, on the device or in the machine: how it is recognised, and what a user can do about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import BaseModel

from empg_cli.errors import UserError

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
    "rollout.max_concurrent": "fewer episodes at once; 0 is all of them",
    "rollout.max_context_tokens": "fewer: shorter episodes",
    "model.dtype": "bfloat16: half of weights and cache",
}
WARM_START = {
    "model.gradient_checkpointing": "true: layers are computed twice and kept once",
    "trainer.warm_start.batch_size": "fewer: fewer demonstrations at once",
    "model.dtype": "bfloat16: half of every pass",
}
LOADING = {
    "model.dtype": "bfloat16: half of the weights",
    "model.param_dtype": "bfloat16: half of weights and optimiser, and less exact steps",
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


class OutOfMemory(UserError):  # noqa: N818 (a sentence for the user)
    """The memory did not suffice, and smaller settings may."""


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
    error: BaseException, phase: str, cfg: BaseModel, again: str, *, may_change: Callable[[str], bool]
) -> OutOfMemory:
    """What is said to the user: where it happened, what helps, with the values now.

    Args:
        phase: as in `timing_s/`.
        again: the command that goes on, to which a setting can be added.
        may_change: whether a run that goes on may have another value of a key.
    """
    reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
    values = cfg.model_dump()
    lines = []
    for key, what in KNOBS.get(phase, LOADING).items():
        if (value := _lookup(values, key)) is not None:
            where = "" if may_change(key) else "; for a new run"
            lines.append(f"  {key}={json.dumps(value).strip(QUOTE)}  ({what}{where})")
    return OutOfMemory(
        "\n".join([f"out of memory in phase {phase}: {reason}", "What helps, with the values now:", *lines,
                   f"To go on with another value:  {again} KEY=VALUE"])
    )  # fmt: skip


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values
