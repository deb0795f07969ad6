"""The official sets that `empg data fetch` and `empg data verify` know, and the words that say which and where."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from empg_cli.benchmarks.alfworld import published as alfworld
from empg_cli.benchmarks.deepsearch.official import published as deepsearch
from empg_cli.benchmarks.published import PublishedFile, Survey
from empg_cli.benchmarks.webshop import published as webshop
from empg_cli.config.node import Node
from empg_cli.disk import in_bytes
from empg_cli.errors import UserError
from empg_cli.invocation import as_value, command

Name = Literal["alfworld", "webshop", "deepsearch"]


class Place(Node):
    data_dir: str | None = None
    """null = what ALFWORLD_DATA, WEBSHOP_DATA or DEEPSEARCH_DATA says."""


class ShopPlace(Place):
    official_set: Literal["small", "full"] = "small"


@dataclass(frozen=True, slots=True)
class Source:
    files: Sequence[PublishedFile]
    survey: Callable[[], Survey]
    play: str
    """The words that play it, quoted for the shell."""
    more: tuple[str, ...] = ()
    """Words that choose this set among others."""


def source_of(benchmark: Name, data_dir: Path, words: Place) -> Source:
    match benchmark:
        case "alfworld":
            place = as_value(alfworld.place_of(data_dir))
            return Source(
                [alfworld.GAMES],
                lambda: alfworld.survey(data_dir),
                shlex.join(["benchmark=alfworld", f"benchmark.data_dir={place}"]),
            )
        case "webshop":
            assert isinstance(words, ShopPlace)
            chosen = words.official_set
            play = shlex.join(["benchmark=webshop", f"benchmark.data_dir={as_value(data_dir)}"])
            if chosen == "full":
                play = command("data", "compile", "webshop", str(data_dir), "--set", "full", "--out", "CATALOGUE")
            return Source(
                webshop.SETS[chosen], lambda: webshop.survey(data_dir, chosen), play, (f"official_set={chosen}",)
            )
        case "deepsearch":
            place = as_value(data_dir)
            return Source(
                deepsearch.FILES,
                lambda: deepsearch.survey(data_dir),
                shlex.join(["benchmark=deepsearch", f"benchmark.data_dir={place}", "benchmark.split=test"]),
            )


def folder_of(benchmark: Name, words: Place) -> Path:
    """Raises UserError: neither a word nor a variable names a folder."""
    variable = f"{benchmark.upper()}_DATA"
    named = words.data_dir or os.environ.get(variable)
    if not named:
        raise UserError(f"where? Give data_dir=DIR, or set {variable}")
    return Path(named).expanduser()


def by_hand(benchmark: Name, source: Source, files: Sequence[PublishedFile], data_dir: Path) -> str:
    """What to download where, where to place it, and how to see that it is right."""
    lines = ["get with a browser, or on a machine with a network:"]
    for file in files:
        size = "size not known" if file.size is None else f"{file.size:,} bytes ({in_bytes(file.size)})"
        lines += [
            f"  {file.address}",
            f"    {file.holds}; {size}; sha256 {file.sha256 or 'not known'}",
            f"    -> place it as {shlex.quote(str(data_dir / file.name))}",
        ]
    check = command("data", "verify", benchmark, f"data_dir={data_dir}", *source.more)
    return "\n  ".join([*lines, f"then: {check}"])
