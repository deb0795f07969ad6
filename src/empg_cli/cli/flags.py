"""What commands share: Hydra's flags, declared once, the config groups in a help text, and how errors end."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from typer.core import TyperCommand

InfoKind = Literal["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
HYDRA = "Hydra"


class OverridesCommand(TyperCommand):
    """A command that takes Hydra overrides: a secret among its words is refused before anything can repeat it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            with user_border():
                from empg_cli.config.secrets import refuse_in_words

                refuse_in_words(args)
            args = _settings_without_dashes(args, {name for option in self.params for name in option.opts})
        return super().parse_args(ctx, args)


class HydraCommand(OverridesCommand):
    """Shows the config groups in its help, and accepts a bare `--info`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_info_kind(args))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        _print_config_groups(leave_out={name for name, only in _GROUPS_OF.items() if ctx.info_name not in only})


def _settings_without_dashes(args: list[str], flags: set[str]) -> list[str]:
    """`--trainer.lr=1e-5`, as the agent of a W&B sweep writes it, is the override `trainer.lr=1e-5`: only where there
    is such a setting and no flag of ours.

    Args:
        flags: `--resume`, and the others of the command.
    """
    ours = args[: args.index("--")] if "--" in args else args
    asked = {word: word[2:].partition("=")[0] for word in ours if word.startswith("--") and "=" in word}
    asked = {word: key for word, key in asked.items() if f"--{key}" not in flags}
    if not asked:
        return args
    from empg_cli.config.keys import settable
    from empg_cli.config.schema import EvalConfig, TrainConfig

    known = settable(TrainConfig, EvalConfig)
    return [word[2:] if asked.get(word) in known else word for word in ours] + args[len(ours) :]


def _with_info_kind(args: list[str]) -> list[str]:
    """Hydra's `--info` has an optional value, which Typer does not know."""
    words = []
    for index, word in enumerate(args):
        is_bare = word in ("--info", "-i") and (args[index + 1 :] or [""])[0] not in get_args(InfoKind)
        words += ["--info", "all"] if is_bare else [word]
    return words


_GROUPS_OF = {"ablation": ("ablate",), "endpoint": ("eval",)}
"""Config groups that only some commands have."""


def _print_config_groups(leave_out: set[str]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from empg_cli.config.targets import options

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    for group, names in options().items():
        if group not in leave_out:
            grid.add_row(Text(group, style="bold cyan"), Text("  ".join(names)))
    Console().print(Panel(grid, title="Config groups (group=option)", title_align="left", border_style="dim"))


def _complete_override(incomplete: str) -> list[str]:
    from empg_cli.cli.completion import complete_word

    return complete_word(incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        autocompletion=_complete_override,
        show_default=False,
        help="[cyan]group=option[/cyan] or [cyan]dotted.key=value[/cyan]; [cyan]+key=value[/cyan] adds, "
        "[cyan]~key[/cyan] removes. May stand before or after flags.",
    ),
]


@dataclass(frozen=True, slots=True)
class HydraFlags:
    """Hydra's own flags; `with_hydra_flags` makes an option of each field."""

    multirun: Annotated[
        bool,
        typer.Option(
            "--multirun",
            "-m",
            rich_help_panel=HYDRA,
            help="Sweep: a job for each combination of comma-separated values.",
        ),
    ] = False
    cfg: Annotated[
        Literal["job", "hydra", "all"] | None,
        typer.Option("--cfg", "-c", rich_help_panel=HYDRA, help="Print the composed config and stop."),
    ] = None
    resolve: Annotated[
        bool, typer.Option("--resolve", rich_help_panel=HYDRA, help="With --cfg: resolve interpolations.")
    ] = False
    package: Annotated[
        str | None,
        typer.Option("--package", "-p", rich_help_panel=HYDRA, help="With --cfg: only this part, e.g. algo."),
    ] = None
    info: Annotated[
        InfoKind | None,
        typer.Option("--info", "-i", rich_help_panel=HYDRA, help="Explain how the config was composed."),
    ] = None
    config_name: Annotated[
        str | None, typer.Option("--config-name", "-cn", rich_help_panel=HYDRA, help="Another primary config.")
    ] = None
    config_dir: Annotated[
        str | None,
        typer.Option(
            "--config-dir", "-cd", rich_help_panel=HYDRA, help="A folder of your own configs, added to conf/."
        ),
    ] = None
    config_path: Annotated[str | None, typer.Option("--config-path", "-cp", hidden=True)] = None
    hydra_help: Annotated[bool, typer.Option("--hydra-help", rich_help_panel=HYDRA, help="Hydra's own help.")] = False
    rerun: Annotated[str | None, typer.Option("--experimental-rerun", hidden=True)] = None

    @property
    def only_shows(self) -> bool:
        return bool(self.cfg or self.info or self.hydra_help)

    def given(self) -> dict[str, bool]:
        """Flag -> whether it is another than by default."""
        return {f"--{one.name.replace('_', '-')}": getattr(self, one.name) != one.default for one in fields(self)}

    def words(self) -> list[str]:
        """For Hydra's command line; the primary config has a way of its own."""
        valued = {
            "--cfg": self.cfg,
            "--package": self.package,
            "--info": self.info,
            "--config-dir": self.config_dir,
            "--config-path": None if self.config_path is None else str(Path(self.config_path).resolve()),
            "--experimental-rerun": self.rerun,
        }
        switches = {"--multirun": self.multirun, "--resolve": self.resolve, "--hydra-help": self.hydra_help}
        return [
            *(f"{flag}={value}" for flag, value in valued.items() if value is not None),
            *(flag for flag, on in switches.items() if on),
        ]


def with_hydra_flags(*, leave_out: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command with a parameter `flags: HydraFlags`: Typer sees the fields in its place, after the others."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        names = [field.name for field in fields(HydraFlags) if field.name not in leave_out]

        @wraps(function)
        def command(**given: Any) -> None:
            function(flags=HydraFlags(**{name: given.pop(name) for name in names}), **given)

        hints = {
            **get_type_hints(function, include_extras=True),
            **get_type_hints(HydraFlags, include_extras=True),
        }
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "flags"]
        shared = [p for p in inspect.signature(HydraFlags).parameters.values() if p.name in names]
        parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in (*own, *shared)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


@contextlib.contextmanager
def user_border() -> Iterator[None]:
    """Mistakes and stops end in a sentence and an exit code; a bug of ours shows its traceback and says what it is."""
    from empg_cli.cli.path_errors import path_border, stdout_border
    from empg_cli.config.problems import ConfigError
    from empg_cli.errors import JobFailed, UserError
    from empg_cli.observe.console import show_bug, show_config_error, show_error
    from empg_cli.observe.stop import Stopped
    from empg_cli.signals import asked, exit_code

    try:
        with path_border(), stdout_border():
            yield
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except ConfigError as error:
        show_config_error(error)
        raise typer.Exit(2) from None
    except UserError as error:
        show_error(str(error))
        raise typer.Exit(error.exit_code) from None
    except JobFailed as error:
        show_error(str(error))
        raise typer.Exit(1) from None
    except Stopped as stop:
        print(f"To go on:  {stop.hint}", file=sys.stderr)
        raise typer.Exit(stop.exit_code) from None
    except OSError as error:
        show_error(f"{error.filename or 'the system'}: {error.strerror or error}")
        raise typer.Exit(2) from None
    except Exception as error:
        if signum := asked():  # what it has cut short, such as an import, fails in its own ways
            raise typer.Exit(exit_code(signum)) from None
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        show_bug(error)
        raise typer.Exit(1) from None
