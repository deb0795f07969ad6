"""`empg export run=RUN out=DIR`: a run's policy for other programs, with its card; and to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from empg_cli.cli.run_words import own_and_run
from empg_cli.config.compose import INVALID
from empg_cli.config.node import Node
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.integrations import hub
from empg_cli.integrations.model_card import model_card
from empg_cli.invocation import from_here
from empg_cli.observe.terminal import printable
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.which_checkpoint import hold_checkpoint


class Written(Node):
    """What is written; all else is said of the run, as for `empg eval`."""

    out: str | None = None
    """A folder that is not there yet; may be left out with `hub`."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """null = as the run kept its weights."""
    adapter: bool = False
    """Of a run with model.lora: the adapter alone, not merged into the weights below."""
    hub: str | None = None
    """owner/name: push the folder to this repository of the Hugging Face Hub."""
    private: bool = True
    """Read with `hub`: false makes the repository public."""


def run(overrides: Sequence[str], *, dry_run: bool = False) -> None:
    example = "empg export run=runs/... out=FOLDER"
    written, given, cfg = own_and_run("export", overrides, Written, example=example)
    if problems := list(_contradictions(written, dry_run)):
        raise ConfigError(INVALID, problems)
    if written.hub is not None:
        hub.check_repo(written.hub)
        if not dry_run:
            hub.probe()  # said before anything is read
    from empg_cli.learner.export import export  # brings torch: seconds

    with _place(written.out) as out, hold_checkpoint(given, cfg.checkpoint) as held:
        folder = find_run_folder(given)
        card = model_card(folder, held.checkpoint, adapter=written.adapter, name=written.hub)
        export(
            held.checkpoint,
            cfg.model,
            cfg.benchmark.name,
            out,
            dtype=written.dtype,
            adapter=written.adapter,
            card=card,
        )
        if written.out is not None:
            print(printable(f"{from_here(held.checkpoint)} -> {from_here(out)}"))
        if written.hub is None:
            return
        if dry_run:
            _show(out, written.hub, written.private, card)
            return
        message = f"{folder.resolve().name}, {held.checkpoint.name}"
        address, is_private = hub.push(out, written.hub, private=written.private, message=message)
        print(printable(f"{address} ({'private' if is_private else 'public'})"))


def _contradictions(written: Written, dry_run: bool) -> Iterator[Problem]:
    if written.adapter and written.dtype is not None:
        yield Problem("dtype", "is not read when adapter=true", hint="leave it out")
    if written.out is None and written.hub is None:
        yield Problem("out", "must name a new folder", hint="or hub=owner/name to push it")
    if written.hub is None and not written.private:
        yield Problem("private", "is read with hub=owner/name only", hint="leave it out")
    if written.hub is None and dry_run:
        yield Problem("--dry-run", "shows what hub=owner/name would push", hint="give hub, or leave it out")


@contextmanager
def _place(out: str | None) -> Iterator[Path]:
    """The folder that is asked for, or one that goes when it has been pushed."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="empg-export-") as folder:
        yield Path(folder) / "model"


def _show(folder: Path, repo: str, private: bool, card: str) -> None:
    kind = "private" if private else "public"
    lines = [f"would push to {repo} ({kind}), of the Hub's kind model:"]
    lines += [f"  {size:>12,} bytes  {name}" for name, size in hub.files(folder)]
    print(printable("\n".join([*lines, "", card])), end="")
