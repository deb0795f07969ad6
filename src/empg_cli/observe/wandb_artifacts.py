"""What W&B gets beside rows: tables of evaluations, and the policies of checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.runs.checkpoint import MODEL, all_checkpoints, best_checkpoint, updates_of

if TYPE_CHECKING:
    import wandb

DATA_DIR = "WANDB_DATA_DIR"
SENT_S = 120
"""Seconds to wait for a policy, beside those that its size takes."""
SLOWEST = 2**20
"""Bytes a second."""


def table_of(rows: Sequence[Mapping[str, Any]]) -> wandb.Table:
    """A column for each key that any row has; what is no plain value is shown as JSON."""
    import wandb

    columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
    return wandb.Table(columns=columns, data=[[_cell(row.get(str(column))) for column in columns] for row in rows])


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)


@contextmanager
def staged_in(folder: Path) -> Iterator[None]:
    """Copies that W&B makes of files, until they are sent, are made in the run folder and not in the user's home."""
    if DATA_DIR in os.environ:
        yield
        return
    os.environ[DATA_DIR] = str(folder / "wandb" / "data")
    try:
        yield
    finally:
        del os.environ[DATA_DIR]


def keep_policies(run: wandb.Run, folder: Path, wanted: Sequence[str], *, is_online: bool) -> None:
    """The Hugging Face folder of the best and of the last checkpoint, once where they are the same; no optimiser.

    Args:
        is_online: wait until they are sent; what `finish` waits for is bounded, whatever their size.
    """
    import wandb

    best, every = best_checkpoint(folder), all_checkpoints(folder)
    found = {"best": best.checkpoint if best else None, "last": every[-1] if every else None}
    aliases: dict[Path, list[str]] = {}
    for alias, path in found.items():
        if alias in wanted and path is not None:
            aliases.setdefault(path, []).append(alias)
    for path, names in aliases.items():
        artifact = wandb.Artifact(f"{run.id}-policy", type="model", metadata={"update": updates_of(path)})
        with staged_in(folder):
            artifact.add_dir(str(path / MODEL))
            logged = run.log_artifact(artifact, aliases=names)
        if is_online:
            logged.wait(timeout=int(SENT_S + artifact.size / SLOWEST))
