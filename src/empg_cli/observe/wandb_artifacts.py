"""What W&B gets beside rows: tables of evaluations, and the policies of checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.runs.checkpoint import MODEL, all_checkpoints, best_checkpoint, updates_of

if TYPE_CHECKING:
    import wandb


def table_of(rows: Sequence[Mapping[str, Any]]) -> wandb.Table:
    """A column for each key that any row has; what is no plain value is shown as JSON."""
    import wandb

    columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
    return wandb.Table(columns=columns, data=[[_cell(row.get(str(column))) for column in columns] for row in rows])


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)


def keep_policies(run: wandb.Run, folder: Path, wanted: Sequence[str]) -> None:
    """The Hugging Face folder of the best and of the last checkpoint, once where they are the same; no optimiser."""
    import wandb

    best, every = best_checkpoint(folder), all_checkpoints(folder)
    found = {"best": best.checkpoint if best else None, "last": every[-1] if every else None}
    aliases: dict[Path, list[str]] = {}
    for alias, path in found.items():
        if alias in wanted and path is not None:
            aliases.setdefault(path, []).append(alias)
    for path, names in aliases.items():
        artifact = wandb.Artifact(f"{run.id}-policy", type="model", metadata={"update": updates_of(path)})
        artifact.add_dir(str(path / MODEL))
        run.log_artifact(artifact, aliases=names)
