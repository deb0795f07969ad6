"""`empg data compile`: official files, or a generated shop, become a catalogue that opens at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from empg_cli.benchmarks.webshop.load import compile_webshop
from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.jobs import COMMAND_LINE
from empg_cli.cli.path_errors import writing
from empg_cli.errors import UserError
from empg_cli.invocation import command
from empg_cli.observe.console import get_console, is_watched
from empg_cli.observe.terminal import write_line

_LINE_EVERY = 100_000


def compile_catalogue(
    data_dir: Path | None,
    out: Path,
    *,
    which: Literal["small", "full"],
    generate: int | None,
    shop_seed: int,
    price_seed: int,
) -> None:
    """Compile WebShop's `data_dir`, or `generate` made-up products, to the new folder `out`; says how to play it."""
    if (data_dir is None) == (generate is None):
        raise UserError("give either the folder of WebShop's official files or --generate N")
    with writing(out), interruptible(command(*COMMAND_LINE[1:])), _progress() as progress:
        manifest = compile_webshop(
            None if data_dir is None else str(data_dir),
            str(out),
            official_set=which,
            num_products=generate or 0,
            shop_seed=shop_seed,
            price_seed=price_seed,
            progress=progress,
        )
    size = sum(manifest["bytes"].values()) / 2**20
    write_line(sys.stderr, f"{manifest['products']:,} {manifest['source']} products, {size:,.0f} MB, in {out}")
    print(f"benchmark=webshop benchmark.data_dir={out}")


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A live count where somebody watches, a line every hundred thousand products elsewhere."""
    if not is_watched():

        def report(count: int) -> None:
            if count % _LINE_EVERY == 0:
                write_line(sys.stderr, f"{count:,} products")

        yield report
        return

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} products"), TimeElapsedColumn())
    with Progress(*columns, console=get_console(), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda count: bar.update(task, completed=count)
