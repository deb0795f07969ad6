"""`bad-batch/`: what an update was to train on when NaN or infinity came out of it, for a report of the fault.

`update-000012.safetensors` holds the tensors of the batch under the names of `types.Batch` (`row_ids` end to end, with
`row_length_B`), `update-000012.json` what was not finite in it, the update's metrics, and which episodes it held.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from empg_cli.files import replacing, write_atomically
from empg_cli.runs.rows import clean_row
from empg_cli.types import Batch, Trajectory

FOLDER = "bad-batch"


def save_bad_batch(
    run_dir: Path, update: int, batch: Batch, metrics: Mapping[str, float], trajectories: Sequence[Trajectory]
) -> Path:
    """Returns the file of its tensors.

    Raises:
        OSError: the disk refuses.
    """
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    tensors = tensors_of(batch)
    not_finite = {name: int((~values.isfinite()).sum()) for name, values in tensors.items()}
    said = {
        "update": update,
        "not_finite": {name: count for name, count in not_finite.items() if count},
        "metrics": clean_row(metrics)[0],
        "episodes": [
            {"task": played.task.task_id, "group": played.group, "index": played.index, "steps": len(played.steps)}
            for played in trajectories
        ],
    }
    file = folder / f"update-{update:06d}.safetensors"
    with replacing(file) as temporary:
        temporary.write_bytes(save(tensors))
    write_atomically(file.with_suffix(".json"), json.dumps(said, indent=1) + "\n")
    return file


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Every tensor of a batch by the name of its field."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    tensors = {name: value.contiguous() for name, value in fields.items() if isinstance(value, Tensor)}
    lengths = torch.tensor([len(row) for row in batch.row_ids], dtype=torch.long)
    rows = torch.cat([row.long() for row in batch.row_ids]) if batch.row_ids else lengths
    return {**tensors, "row_ids": rows, "row_length_B": lengths}
