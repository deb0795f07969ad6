"""The command line. Declares what can be typed; the work is in `commands`, imported when a command is chosen."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from empg_cli.commands.launch import HydraFlags

app = typer.Typer(
    name="empg",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, evaluate and compare language-model agents on long tasks: [bold]EMPG[/bold], GRPO, DAPO.",
    epilog="Try: [cyan]empg train[/cyan]   ·   [cyan]empg train algo=grpo -m seed=0,1,2[/cyan]   ·   "
    "[cyan]empg eval run=runs/...[/cyan]",
)

INFO_KINDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
HYDRA = "Hydra"


class HydraCommand(TyperCommand):
    """A command that takes Hydra overrides: shows the config groups in its help, and accepts a bare `--info`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_info_kind(args))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        _print_config_groups(leave_out={name for name, only in _GROUPS_OF.items() if ctx.info_name not in only})


def _with_info_kind(args: list[str]) -> list[str]:
    """Hydra's `--info` has an optional value, which Typer does not know."""
    words = []
    for index, word in enumerate(args):
        is_bare = word in ("--info", "-i") and (args[index + 1 :] or [""])[0] not in INFO_KINDS
        words += ["--info", "all"] if is_bare else [word]
    return words


_GROUPS_OF = {"ablation": ("ablate",), "endpoint": ("eval",)}
"""Config groups that only some commands have."""


def _print_config_groups(leave_out: set[str]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from empg_cli.config.location import groups

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    for group, options in groups().items():
        if group not in leave_out:
            grid.add_row(Text(group, style="bold cyan"), Text("  ".join(options)))
    Console().print(Panel(grid, title="Config groups (group=option)", title_align="left", border_style="dim"))


def _complete_override(incomplete: str) -> list[str]:
    from empg_cli.commands.completion import complete_word

    return complete_word(incomplete)


def _version(value: bool) -> None:
    if value:
        from empg_cli import __version__

        print(f"empg {__version__}")
        raise typer.Exit


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
Multirun = Annotated[
    bool,
    typer.Option(
        "--multirun", "-m", rich_help_panel=HYDRA, help="Sweep: a job for each combination of comma-separated values."
    ),
]
Cfg = Annotated[
    Literal["job", "hydra", "all"] | None,
    typer.Option("--cfg", "-c", rich_help_panel=HYDRA, help="Print the composed config and stop."),
]
Resolve = Annotated[bool, typer.Option("--resolve", rich_help_panel=HYDRA, help="With --cfg: resolve interpolations.")]
Package = Annotated[
    str | None, typer.Option("--package", "-p", rich_help_panel=HYDRA, help="With --cfg: only this part, e.g. algo.")
]
Info = Annotated[
    Literal["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"] | None,
    typer.Option("--info", "-i", rich_help_panel=HYDRA, help="Explain how the config was composed."),
]
ConfigName = Annotated[
    str | None, typer.Option("--config-name", "-cn", rich_help_panel=HYDRA, help="Another primary config.")
]
ConfigDir = Annotated[
    str | None,
    typer.Option("--config-dir", "-cd", rich_help_panel=HYDRA, help="A folder of your own configs, added to conf/."),
]
ConfigPath = Annotated[str | None, typer.Option("--config-path", "-cp", hidden=True)]
HydraHelp = Annotated[bool, typer.Option("--hydra-help", rich_help_panel=HYDRA, help="Hydra's own help.")]
Rerun = Annotated[str | None, typer.Option("--experimental-rerun", hidden=True)]


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(cls=HydraCommand, epilog="Every key with its value: [cyan]empg train --cfg job[/cyan]")
def train(
    overrides: Overrides = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Go on with a run from its newest good checkpoint (or the checkpoint given), with its own config.",
        ),
    ] = None,
    multirun: Multirun = False,
    cfg: Cfg = None,
    resolve: Resolve = False,
    package: Package = None,
    info: Info = None,
    config_name: ConfigName = None,
    config_dir: ConfigDir = None,
    config_path: ConfigPath = None,
    hydra_help: HydraHelp = False,
    rerun: Rerun = None,
) -> None:
    """Train an agent: [bold]empg train benchmark=alfworld algo=empg[/bold]."""
    with _user_border():
        from empg_cli.commands import train as command

        flags = _flags(multirun, cfg, resolve, package, info, config_dir, config_path, hydra_help, rerun)
        command.run(overrides or [], flags, config_name or "train", resume)


@app.command("eval", cls=HydraCommand, epilog="Every key with its value: [cyan]empg eval --cfg job[/cyan]")
def evaluate(
    overrides: Overrides = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Play nothing: paired statistics of two evaluations (run folders, eval folders or files of them).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    multirun: Multirun = False,
    cfg: Cfg = None,
    resolve: Resolve = False,
    package: Package = None,
    info: Info = None,
    config_name: ConfigName = None,
    config_dir: ConfigDir = None,
    config_path: ConfigPath = None,
    hydra_help: HydraHelp = False,
    rerun: Rerun = None,
) -> None:
    """Play each task of a split: [bold]empg eval run=DIR[/bold]; or model=NAME, endpoint=openai, policy=expert."""
    with _user_border():
        if compare is not None:
            if overrides:
                raise typer.BadParameter("plays nothing, so it takes no overrides", param_hint="--compare")
            from empg_cli.commands import compare as comparison

            comparison.run(*compare, as_json=as_json)
            return
        from empg_cli.commands import evaluate as command

        flags = _flags(multirun, cfg, resolve, package, info, config_dir, config_path, hydra_help, rerun)
        command.run(overrides or [], flags, config_name or "eval", as_json=as_json)


@app.command(cls=HydraCommand, epilog="An ablation of your own: docs/ablations.md")
def ablate(
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Runs at once (extra: joblib).")] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print the cells, the time they take and the seeds that are needed.")
    ] = False,
    detect: Annotated[
        float, typer.Option("--detect", min=1e-6, metavar="D", help="With --plan: the difference you want to see.")
    ] = 0.03,
    sd: Annotated[
        float | None,
        typer.Option("--sd", min=0.0, metavar="SD", help="With --plan: standard deviation of the paired difference."),
    ] = None,
    across: Annotated[
        bool, typer.Option("--across", help="The words are finished studies: one table over all of them; runs nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="With --across: write the table there too.")
    ] = None,
    cfg: Cfg = None,
    resolve: Resolve = False,
    package: Package = None,
    info: Info = None,
    config_name: ConfigName = None,
    config_dir: ConfigDir = None,
    hydra_help: HydraHelp = False,
) -> None:
    """Compare variants over seeds: [bold]empg ablate ablation=components seeds=5[/bold]. The same command goes on."""
    with _user_border():
        from empg_cli.commands import ablate as command

        if across:
            command.across(overrides or [], out)
            return
        if out is not None:
            raise typer.BadParameter("is read by --across only; a study writes into run_dir", param_hint="--out")
        flags = _flags(False, cfg, resolve, package, info, config_dir, None, hydra_help, None)
        command.run(overrides or [], flags, config_name or "ablate", jobs=jobs, wish=(detect, sd) if plan else None)


@app.command(
    epilog="More than one run of a configuration gives bands over seeds: [cyan]empg report runs/a runs/b[/cyan]"
)
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, sweeps or studies.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to write; by default RUN/report.")
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Curves as PNG, PDF and SVG (extra: report).")
    ] = True,
) -> None:
    """Draw curves and one HTML page, with every step's entropy and credit: [bold]empg report runs/...[/bold]."""
    with _user_border():
        from empg_cli.commands import report as command

        command.run(runs, out, figures=figures)


@app.command(epilog="Writes RUN/diagnostics/, which [cyan]empg report[/cyan] draws. What it means: docs/diagnostics.md")
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or one of its checkpoints.")],
    overrides: Overrides = None,
    episodes: Annotated[
        int, typer.Option("--episodes", min=2, metavar="N", help="Tasks of the split to play, once each.")
    ] = 32,
    gradients: Annotated[
        int, typer.Option("--gradients", min=0, metavar="N", help="Steps whose real gradient is computed; 0 = none.")
    ] = 64,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="POLICY",
            help="Earlier policy for the change of entropy: [cyan]initial[/cyan] or a checkpoint; else the earliest.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="By default RUN/diagnostics.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Check EMPG's theory on a policy of yours: Proposition 1, gradient norms, Figure 3."""
    with _user_border():
        from empg_cli.commands import diagnose as command

        command.run(
            run, overrides or [], episodes=episodes, gradients=gradients, before=before, out=out, as_json=as_json
        )


@app.command()
def show(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run folder.")] = None,
    trajectories: Annotated[
        int, typer.Option("--trajectories", "-n", min=0, metavar="N", help="How many trajectories to print.")
    ] = 2,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="List what every metric means; a word instead of RUN narrows it down.")
    ] = False,
) -> None:
    """Print a run: curves, and trajectories with the credit of every step; or `--metrics`."""
    with _user_border():
        from empg_cli.commands import report as command

        if metrics:
            command.show_metrics(str(run) if run else None)
        elif run is None:
            raise typer.BadParameter("give a run folder, or --metrics", param_hint="RUN")
        else:
            command.show(run, trajectories=trajectories)


@app.command(cls=HydraCommand)
def play(
    overrides: Overrides = None,
    task: Annotated[int, typer.Option("--task", min=0, metavar="N", help="Number of the task in its split.")] = 0,
) -> None:
    """Play a task yourself: [bold]empg play benchmark=alfworld benchmark.split=valid_unseen[/bold]."""
    with _user_border():
        from empg_cli.commands import play as command

        command.run(overrides or [], task)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on stdout.")] = False,
) -> None:
    """Look at this machine and installation: versions, GPU, data, extras, W&B. Asks nothing, changes nothing."""
    with _user_border():
        from empg_cli.commands import doctor as command

        if not command.run(as_json=as_json):
            raise typer.Exit(1)


data_app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Prepare benchmark data.")
app.add_typer(data_app, name="data")


@data_app.command("index")
def data_index(
    benchmark: Annotated[Literal["deepsearch"], typer.Argument(help="Whose data.")],
    corpus: Annotated[
        list[Path], typer.Option("--corpus", metavar="FILE", help="Passages: wiki-18 jsonl, or title and text as json.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the index.")],
    engine: Annotated[
        Literal["tantivy", "bm25s", "dense"], typer.Option("--engine", help="Search engine.")
    ] = "tantivy",
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="MODEL", help="dense: Hugging Face folder or hub id.")
    ] = None,
    pooling: Annotated[Literal["mean", "cls"], typer.Option("--pooling", help="dense: tokens to vector.")] = "mean",
    query_prefix: Annotated[str, typer.Option("--query-prefix", help="dense: such as 'query: ' for E5.")] = "",
    passage_prefix: Annotated[str, typer.Option("--passage-prefix", help="dense: such as 'passage: ' for E5.")] = "",
    device: Annotated[str, typer.Option("--device", help="dense: auto, cpu, cuda.")] = "auto",
) -> None:
    """Index a corpus for Deep Search: [bold]empg data index deepsearch --corpus wiki-18.jsonl --out DIR[/bold]."""
    with _user_border():
        from empg_cli.commands import data_deepsearch as command

        command.index(
            corpus,
            out,
            engine,
            encoder=encoder,
            pooling=pooling,
            query_prefix=query_prefix,
            passage_prefix=passage_prefix,
            device=device,
        )


@data_app.command("serve")
def data_serve(
    benchmark: Annotated[Literal["deepsearch"], typer.Argument(help="Whose data.")],
    index_dir: Annotated[
        Path | None,
        typer.Option("--index", metavar="DIR", help="Folder made by `data index`; else the generated world."),
    ] = None,
    mode: Annotated[Literal["fictional", "real"], typer.Option("--world", help="Which generated world.")] = "fictional",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the generated world.")] = 0,
    cache_dir: Annotated[Path | None, typer.Option("--cache-dir", metavar="DIR", help="Where worlds are kept.")] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
    top_k: Annotated[int, typer.Option("--topk", min=1, help="Hits when a request does not say.")] = 3,
) -> None:
    """Serve a search engine as Search-R1's [bold]/retrieve[/bold], on this machine only unless told otherwise."""
    with _user_border():
        from empg_cli.commands import data_deepsearch as command

        command.serve(index_dir, mode=mode, seed=seed, cache_dir=cache_dir, host=host, port=port, top_k=top_k)


@data_app.command("compile")
def data_compile(
    benchmark: Annotated[Literal["webshop"], typer.Argument(help="Whose data.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the compiled catalogue.")],
    data_dir: Annotated[Path | None, typer.Argument(metavar="[DATA_DIR]", help="Folder of the official files.")] = None,
    which: Annotated[Literal["small", "full"], typer.Option("--set", help="Which official files.")] = "full",
    generate: Annotated[
        int | None,
        typer.Option("--generate", min=10, metavar="N", help="Instead of official files: a shop of N products."),
    ] = None,
    shop_seed: Annotated[int, typer.Option("--shop-seed", min=0, help="Seed of the generated products.")] = 0,
    price_seed: Annotated[int, typer.Option("--price-seed", min=0, help="Seed of prices and price ceilings.")] = 0,
) -> None:
    """Compile a catalogue once, so that any number of products opens at once and is shared by all processes."""
    with _user_border():
        from empg_cli.commands import data as command

        command.compile_catalogue(
            data_dir, out, which=which, generate=generate, shop_seed=shop_seed, price_seed=price_seed
        )


def _flags(
    multirun: bool,
    cfg: str | None,
    resolve: bool,
    package: str | None,
    info: str | None,
    config_dir: str | None,
    config_path: str | None,
    hydra_help: bool,
    rerun: str | None,
) -> HydraFlags:
    from empg_cli.commands.launch import HydraFlags

    return HydraFlags(multirun, cfg, resolve, package, info, config_dir, config_path, hydra_help, rerun)


@contextlib.contextmanager
def _user_border() -> Iterator[None]:
    """Mistakes and stops end in a sentence and an exit code; a bug of ours keeps its traceback."""
    from empg_cli.config.problems import ConfigError
    from empg_cli.console import show_config_error, show_error
    from empg_cli.errors import JobFailed, UserError
    from empg_cli.training.stop import Stopped

    try:
        yield
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
