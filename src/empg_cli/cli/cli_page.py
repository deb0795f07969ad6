"""docs/cli.md, every command: `python -m empg_cli.cli.cli_page docs/cli.md` writes it anew.

Read from what the commands declare to Typer, not from Typer's own objects, whose form changes with its versions.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

from empg_cli.cli.app import app
from empg_cli.cli.flags import HYDRA, HydraCommand

HEAD = """# Command line

<!-- generated: python -m empg_cli.cli.cli_page docs/cli.md -->

Words of the form `key=value` may stand before and after flags; [configuration.md](configuration.md) has every key.
Results go to stdout, progress to stderr.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a job failed, or `empg doctor` found that empg cannot train here |
| 2 | refused: the command, its configuration, a file, a server or the machine; the message says what to do |
| 3 | ended by a health check: the preflight, or a warning with `trainer.health.stop=true` ([health.md](health.md)) |
| 128 + n | stopped by signal n (130: Ctrl-C, 143: SIGTERM); a checkpoint is saved |

"""


@dataclass(frozen=True, slots=True)
class Word:
    """A flag or an argument of a command."""

    name: str
    declared: Any
    """What Typer is told: `typer.Option(...)` or `typer.Argument(...)`."""
    kind: Any
    default: Any

    @property
    def is_flag(self) -> bool:
        return self.kind is bool

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def is_hydras(self) -> bool:
        return bool(self.declared.rich_help_panel == HYDRA)

    @property
    def spellings(self) -> list[str]:
        """Typer takes the first one for a default, where an annotation declares it."""
        named = [self.declared.default, *(self.declared.param_decls or ())]
        return [word for word in named if isinstance(word, str)] or [f"--{self.name.replace('_', '-')}"]

    @property
    def value(self) -> str:
        """What stands behind it, as a word in capitals or the choices."""
        if self.declared.metavar:
            return str(self.declared.metavar)
        inner = [kind for kind in get_args(self.kind) if kind is not NoneType] or [self.kind]
        kind = self.kind if get_origin(self.kind) is Literal else inner[0]
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
        return (
            {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")
            if isinstance(self.declared, OptionInfo)
            else self.name.upper()
        )


def words_of(function: Callable[..., Any]) -> list[Word]:
    """What a command declares, hidden flags left out."""
    found = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if get_origin(parameter.annotation) is Annotated:
            kind, *marks = get_args(parameter.annotation)
            (declared,) = (mark for mark in marks if isinstance(mark, OptionInfo | ArgumentInfo))
            if not declared.hidden:
                found.append(Word(parameter.name, declared, kind, parameter.default))
    return found


def cli_page() -> str:
    """The whole page."""
    (train,) = (info.callback for info in app.registered_commands if _name(info) == "train")
    assert train is not None
    hydra = [word for word in words_of(train) if word.is_hydras]
    parts = [HEAD, *_group(app, "empg"), "## Hydra's flags\n\nOf every command that names them.\n\n", _flags(hydra)]
    return "".join(parts).rstrip() + "\n"


def _group(group: typer.Typer, name: str) -> Iterator[str]:
    for info in group.registered_commands:
        yield _command(info, f"{name} {_name(info)}")
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _group(inner.typer_instance, f"{name} {inner.name}")


def _name(info: Any) -> str:
    return str(info.name or info.callback.__name__.replace("_", "-"))


def _command(info: Any, name: str) -> str:
    words = words_of(info.callback)
    flags = [word for word in words if isinstance(word.declared, OptionInfo)]
    arguments = [word for word in words if isinstance(word.declared, ArgumentInfo)]
    own = [word for word in flags if not word.is_hydras]
    usage = " ".join([name, *(["[FLAGS]"] if flags else []), *map(_shown, arguments)])
    parts = [f"## `{name}`\n\n{_plain(inspect.getdoc(info.callback))}\n\n```text\n{usage}\n```\n\n"]
    told = [word for word in arguments if word.declared.help and word.name != "overrides"]
    if told:
        rows = [f"| `{_shown(word)}` | {_plain(word.declared.help)} |" for word in told]
        parts.append("\n".join(["| argument | meaning |", "|---|---|", *rows]) + "\n\n")
    if own:
        parts.append(_flags(own))
    if any(word.is_hydras for word in flags):
        has_sweeps = any(word.name == "multirun" for word in flags)
        parts.append(f"And [Hydra's flags](#hydras-flags){'' if has_sweeps else ', but `--multirun`'}.\n\n")
    if info.cls is HydraCommand:
        parts.append("`--help` lists the config groups.\n\n")
    return "".join(parts)


def _flags(words: Sequence[Word]) -> str:
    rows = [f"| {_spelt(word)} | {_default(word)} | {_plain(word.declared.help)} |" for word in words]
    return "\n".join(["| flag | default | meaning |", "|---|---|---|", *rows]) + "\n\n"


def _spelt(word: Word) -> str:
    value = "" if word.is_flag else f" {word.value}"
    first, *others = word.spellings
    return ", ".join([f"`{first}{value}`", *(f"`{spelling}`" for spelling in others)]).replace("|", r"\|")


def _default(word: Word) -> str:
    if word.is_required:
        return "must be given"
    if isinstance(said := word.declared.show_default, str):
        return f"`{said}`"
    if word.default in (None, "") or word.default is False:
        return ""
    return f"`{str(word.default).lower() if word.is_flag else word.default}`"


def _shown(word: Word) -> str:
    value = f"{word.value}..." if get_origin(word.kind) is list and "..." not in word.value else word.value
    return value if word.is_required or value.startswith("[") else f"[{value}]"


def _plain(text: str | None) -> str:
    """Without rich's marks: what is bold or coloured in a terminal is code here."""
    marked = re.sub(r"\[(bold|cyan)\](.*?)\[/\1\]", r"`\2`", " ".join((text or "").split()))
    return marked.replace("|", r"\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(cli_page(), encoding="utf-8")
