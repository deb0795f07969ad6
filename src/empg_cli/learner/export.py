"""A policy out of a run, as a folder that other programs read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from empg_cli.config.schema import Model
from empg_cli.errors import UserError
from empg_cli.model import lora
from empg_cli.model.loading import load_adapter, load_folder
from empg_cli.model.policy import Policy
from empg_cli.runs.checkpoint import MODEL

CPU = torch.device("cpu")
CARD = "README.md"
"""Where the Hub looks for a model's card."""


def export(
    checkpoint: Path,
    model: Model,
    benchmark: str,
    out: Path,
    *,
    dtype: str | None,
    adapter: bool,
    card: str | None = None,
) -> None:
    """Write a Hugging Face model folder with the weights of a checkpoint, an adapter's products merged into them; or
    the adapter itself, in peft's format. The folder appears whole or not at all.

    Args:
        model: the settings of the run; they say where the weights below an adapter are.
        dtype: of the weights; None = as the run kept them, below an adapter as they were read.
        adapter: leave it apart, in the type that it was trained in.
        card: what its README.md says; None = it has none.

    Raises:
        UserError: there is something in `out`, or no adapter to leave apart.
        DataError: the weights cannot be read, or are not those that the adapter was trained on.
    """
    out = out.expanduser()
    if out.is_symlink():
        out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: give another out, or delete it")
    temporary = out.absolute().with_name(f".tmp-{out.absolute().name}-{os.getpid()}")
    try:
        if adapter:
            _copy_adapter(checkpoint / MODEL, temporary)
        else:
            _plain(checkpoint / MODEL, model, benchmark, dtype).save(temporary)
        if card is not None:
            (temporary / CARD).write_text(card, encoding="utf-8")
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_adapter(folder: Path, to: Path) -> None:
    if not lora.is_adapter(folder):
        raise UserError(f"{folder} holds no adapter, since all weights were trained: leave adapter out")
    shutil.copytree(folder, to)


def _plain(folder: Path, model: Model, benchmark: str, dtype: str | None) -> Policy:
    if not lora.is_adapter(folder):
        return load_folder(str(folder), dtype=dtype or model.param_dtype, device=CPU)
    policy = load_adapter(folder, model, benchmark, CPU)
    lora.merge(policy.model, policy.dtype if dtype is None else getattr(torch, dtype))
    return Policy(policy.model, policy.tokenizer, CPU)
