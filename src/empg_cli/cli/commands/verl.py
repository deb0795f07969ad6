"""`empg verl out=FOLDER key=value ...`: what `empg train` would do, for verl to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from empg_cli.cli.path_errors import writing
from empg_cli.cli.run_words import own_words
from empg_cli.config.compose import INVALID
from empg_cli.config.job import load_job
from empg_cli.config.node import Node
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.invocation import command, from_here
from empg_cli.observe.terminal import printable


class Written(Node):
    out: str
    """A folder that is not there yet."""


def run(overrides: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: a word is wrong, or asks for what verl cannot do.
    """
    mine = [word for word in overrides if word.startswith("out=")]
    written = own_words("verl", mine, Written, example=command("verl", "out=FOLDER", "experiment=paper_7b"))
    cfg = load_job("train", [word for word in overrides if word not in mine], TrainConfig)
    from empg_cli.integrations.verl import words

    if problems := list(words.refused(cfg)):
        raise ConfigError(INVALID, problems)
    from empg_cli.integrations.verl import handover

    out = Path(written.out).expanduser()
    with writing(out):
        counts = handover.write(cfg, out)
    print(printable(f"{', '.join(f'{name}: {count:,} tasks' for name, count in counts.items())}"))
    for note in words.notes(cfg):
        print(printable(f"note: {note}"))
    print(printable(f"in an environment with verl and empg: {from_here(out)}/{handover.SCRIPT}"))
