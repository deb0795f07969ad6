"""`empg data trajectories run=RUN out=FILE.parquet`: what a run has kept, as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from empg_cli.cli.path_errors import writing
from empg_cli.cli.run_words import own_words
from empg_cli.config.node import Node
from empg_cli.errors import UserError
from empg_cli.integrations.trajectory_dataset import write_dataset
from empg_cli.invocation import command, from_here
from empg_cli.observe.terminal import printable


class Taken(Node):
    run: str
    """A run folder, or that of an evaluation."""
    out: str
    """A new file, FOLDER/NAME.parquet; the dataset's card goes beside it."""
    phase: Literal["train", "eval"] | None = None
    """null = both."""


def run(overrides: Sequence[str]) -> None:
    example = command("data", "trajectories", "run=runs/...", "out=trajectories/steps.parquet")
    taken = own_words("data trajectories", overrides, Taken, example=example)
    folder, out = Path(taken.run).expanduser(), Path(taken.out).expanduser()
    if not folder.is_dir():
        raise UserError(f"run={taken.run}: no such folder")
    with writing(out):
        rows = write_dataset(folder, out, taken.phase)
    print(printable(f"{rows:,} steps -> {from_here(out)}"))
