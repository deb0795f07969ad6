"""`empg serve run=RUN`: a trained policy behind OpenAI's interface."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import Field, PositiveInt

from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.run_words import own_and_run
from empg_cli.config.node import Node
from empg_cli.invocation import command
from empg_cli.observe.terminal import printable, write_line
from empg_cli.runs.config_file import find_run_folder


class Served(Node):
    """How it is offered; all else is said of the run, as for `empg eval`."""

    host: str = "127.0.0.1"
    """0.0.0.0 opens it to the network."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 = a free one."""
    name: str | None = None
    """Of the model, in requests; null = that of the run folder."""
    max_context_tokens: PositiveInt | None = None
    """Of a prompt and its answer; null = as many as the model has positions."""
    max_concurrent: PositiveInt = 32
    """Answers that are sampled at once; others wait."""


ALSO = ("model.dtype", "trainer.device", "trainer.threads", "rollout.max_new_tokens")


def run(overrides: Sequence[str]) -> None:
    served, given, cfg = own_and_run("serve", overrides, Served, example="empg serve run=runs/...", also=ALSO)
    name = served.name or find_run_folder(given).resolve().name
    from empg_cli.integrations.serving.server import serve  # brings torch: seconds

    with interruptible(command("serve", *overrides)):
        serve(
            given,
            cfg,
            host=served.host,
            port=served.port,
            name=name,
            most_tokens=served.max_context_tokens,
            most_at_once=served.max_concurrent,
            say=lambda line: write_line(sys.stderr, printable(line)),
        )
