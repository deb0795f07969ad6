"""`empg export run=RUN out=DIR`: a run's policy for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from empg_cli.cli.run_words import own_and_run
from empg_cli.config.compose import INVALID
from empg_cli.config.node import Node
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.invocation import from_here
from empg_cli.observe.terminal import printable
from empg_cli.runs.which_checkpoint import hold_checkpoint


class Written(Node):
    """What is written; all else is said of the run, as for `empg eval`."""

    out: str
    """A folder that is not there yet."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """null = as the run kept its weights."""
    adapter: bool = False
    """Of a run with model.lora: the adapter alone, not merged into the weights below."""


def run(overrides: Sequence[str]) -> None:
    example = "empg export run=runs/... out=FOLDER"
    written, given, cfg = own_and_run("export", overrides, Written, example=example)
    if written.adapter and written.dtype is not None:
        raise ConfigError(INVALID, [Problem("dtype", "is not read when adapter=true", hint="leave it out")])
    from empg_cli.learner.export import export  # brings torch: seconds

    out = Path(written.out)
    with hold_checkpoint(given, cfg.checkpoint) as held:
        export(held.checkpoint, cfg.model, cfg.benchmark.name, out, dtype=written.dtype, adapter=written.adapter)
        print(printable(f"{from_here(held.checkpoint)} -> {from_here(out)}"))
